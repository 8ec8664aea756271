/*-------------------------------------------------------------------------
 *
 * transactions.h
 *	  How a loop that runs in a worker, or in a procedure, opens and ends its
 *	  transactions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_TRANSACTIONS_H
#define HX_TRANSACTIONS_H

typedef struct HxTransactions
{
	void		(*begin) (void);
	void		(*commit) (void);
	bool		takes_announcements;	/* of what commits made due; one process does */
} HxTransactions;

/* procedure_store.c */
extern const HxTransactions hx_procedure_transactions;
extern void hx_procedure_enter(void);
extern void hx_procedure_leave(void);

#endif							/* HX_TRANSACTIONS_H */
