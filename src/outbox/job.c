/*-------------------------------------------------------------------------
 *
 * job.c
 *	  The delivery as a worker's job; by the way it deletes old requests.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outbox/outbox.h"

typedef struct DeliveryJob
{
	const HxTransactions *transactions;
	HxDelivery *delivery;
	HxRetention retention;
} DeliveryJob;

static void *
create(const HxTransactions *transactions)
{
	DeliveryJob *job = palloc0(sizeof(DeliveryJob));

	job->transactions = transactions;
	job->delivery = hx_delivery_create(transactions, NULL);
	return job;
}

static int64
step(void *arg)
{
	DeliveryJob *job = arg;
	int64		wish = hx_delivery_step(job->delivery);

	if (wish > 0 && hx_delivery_held(job->delivery) == NULL)
		wish = Min(wish, hx_retention_step(&job->retention, job->transactions));
	return wish;
}

static int64
after_error(void *arg)
{
	return hx_delivery_after_error(((DeliveryJob *) arg)->delivery);
}

static void
wait(void *arg, int64 milliseconds)
{
	/* without a wish, too: what is on its way goes on only there */
	hx_delivery_wait(((DeliveryJob *) arg)->delivery, milliseconds);
}

static int
in_flight(const void *arg)
{
	return hx_delivery_in_flight(((const DeliveryJob *) arg)->delivery);
}

static const char *
held(const void *arg)
{
	return hx_delivery_held(((const DeliveryJob *) arg)->delivery);
}

static const char *
over(const void *arg)
{
	return "the extension is gone";
}

static const char *const settings[][2] = {
	{"synchronous_commit", "on"},	/* sending must be on disk before the first byte */
	{"enable_seqscan", "off"},	/* plans made over an empty queue must fit a long one: */
	{"enable_bitmapscan", "off"},	/* in the order of an index, and no further than asked for */
	{"enable_sort", "off"},
	{"enable_nestloop", "off"}, /* but where there is no other way: outcomes meet their rows by a hash */
	{NULL}
};

const HxJob hx_delivery_job = {
	.name = "delivery",
	.held_text = "nothing is sent from it",
	.settings = settings,
	.create = create,
	.step = step,
	.after_error = after_error,
	.wait = wait,
	.in_flight = in_flight,
	.held = held,
	.over = over
};
