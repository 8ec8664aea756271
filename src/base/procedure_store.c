/*-------------------------------------------------------------------------
 *
 * procedure_store.c
 *	  The transactions of a procedure that commits as it goes.
 *
 * In a procedure there is always a transaction open; between a commit and the
 * next statement it holds neither snapshot nor lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "tcop/pquery.h"

#include "base/transactions.h"

static void
commit(void)
{
	SPI_commit();
}

const HxTransactions hx_procedure_transactions = {
	.begin = EnsurePortalSnapshotExists,
	.commit = commit
};

/*
 * Enters and leaves the state in which a procedure may commit.  The current
 * memory context is another one after each.
 */
void
hx_procedure_enter(void)
{
	SPI_connect_ext(SPI_OPT_NONATOMIC);
}

void
hx_procedure_leave(void)
{
	SPI_finish();
}
