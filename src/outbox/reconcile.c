/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *	  What a look-up says: which record is meant, and is the work done?
 *
 * Three questions are asked of the remote system.  Which record has this
 * natural key: there must be exactly one that lives, for a change of the wrong
 * record cannot be taken back.  Has this creation, message or file arrived: a
 * thing that was made after the request, looks like it, and was not made by
 * another request of the outbox.  Is this record in the state that was asked
 * for: then whoever put it there, nothing is left to be done.
 *
 * Nothing here touches the database or the network; it can run anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/md5.h"
#include "lib/stringinfo.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "outbox/answer.h"

/*
 * Clocks differ; a record that is older than its request by more is another's.
 * Where a stamp can tell the truth after that, a mistake costs two requests;
 * where none can, it would cost a second record.
 */
#define CLOCKS_DIFFER_MS		(10 * 1000)
#define CLOCKS_DIFFER_NO_STAMP_MS	(10 * 60 * 1000)

#define MD5_HEX_LEN		32

/* ---- reading lists ---- */

/* A record of a list. */
typedef struct Listed
{
	char	   *id;
	Jsonb	   *record;
} Listed;

static void
add_listed(const char *name, const JsonbValue *value, void *arg)
{
	List	  **records = arg;
	Listed	   *listed;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		return;
	listed = palloc(sizeof(Listed));
	listed->record = hx_json_value_part(value);
	listed->id = name ? pstrdup(name) : NULL;
	*records = lappend(*records, listed);
}

/*
 * Reads the list that was answered, an object keyed by id or an array, into a
 * List of Listed *; id_place is where an array's records have their id.  False
 * where it is no list, or one that may be cut; *problem says so.
 */
static bool
read_list(const HxAccount *account, const HxHttpResult *result, const char *id_place, List **records, char **problem)
{
	Jsonb	   *body = NULL;
	char	   *not_json = NULL;
	ListCell   *cell;

	*records = NIL;
	if (result->outcome == HX_HTTP_ANSWERED && result->status != 204 && result->body_len > 0)
		body = hx_json_try_parse(result->body, result->body_len, &not_json);
	if (result->outcome != HX_HTTP_ANSWERED)
		*problem = psprintf("%s", result->error);
	else if (result->status < 200 || result->status > 299)
		*problem = hx_answer_describe(account, result, body);
	else if (result->status == 204)
		return true;
	else if (body == NULL || JB_ROOT_IS_SCALAR(body))
		*problem = psprintf("HTTP %d: the answer is not a list%s%s", result->status,
							not_json ? ": " : "", not_json ? not_json : "");
	else if (JB_ROOT_COUNT(body) >= HX_LOOK_UP_MAX_RECORDS)
		*problem = psprintf("HTTP %d: the list has %d records and may go on", result->status, (int) JB_ROOT_COUNT(body));
	else
	{
		hx_json_each(body, add_listed, records);
		foreach(cell, hx_json_elements(body))
		{
			int			before = list_length(*records);

			add_listed(NULL, lfirst(cell), records);
			if (list_length(*records) > before)
			{
				Listed	   *listed = llast(*records);

				listed->id = hx_json_text(listed->record, id_place ? id_place : "id");
			}
		}
		return true;
	}
	return false;
}

/* A text without what a remote system may have tidied up in it. */
static char *
plain(const char *text)
{
	StringInfoData out;

	initStringInfo(&out);
	for (; *text; text++)
	{
		if ((unsigned char) *text > ' ')
			appendStringInfoChar(&out, *text);
		else if (out.len > 0 && out.data[out.len - 1] != ' ')
			appendStringInfoChar(&out, ' ');
	}
	if (out.len > 0 && out.data[out.len - 1] == ' ')
		out.data[--out.len] = '\0';
	return out.data;
}

static bool
holds_text(const Jsonb *record, const char *place, const char *text)
{
	ListCell   *cell;

	foreach(cell, hx_answer_texts(record, place))
		if (strcmp(plain(lfirst(cell)), plain(text)) == 0)
			return true;
	return false;
}

/* ---- which record is meant ---- */

/*
 * Judges the answer to the question which record has the request's natural
 * key.  awaited is not NIL where the outbox holds a request that is still to
 * create it.
 */
void
hx_reconcile_resolved(const HxAccount *account, HxRequest *request, const HxHttpResult *result, List *awaited)
{
	Jsonb	   *resource = hx_manifest_resource(account->manifest, account->connector, request->resource);
	Jsonb	   *operation = hx_wire_operation(account, request);
	char	   *field = hx_json_text(resource, "operations.create.natural_key");
	char	   *deleted_place = hx_json_text(resource, "deleted");
	char	   *named;
	char	   *problem;
	char	   *deleted = NULL;
	StringInfoData ids;
	List	   *records;
	Listed	   *live = NULL;
	int			count = 0;
	ListCell   *cell;

	request->outcome.uncertain |= request->uncertain;
	request->outcome.error = NULL;
	named = psprintf("%s \"%s\"", field ? field : "key", request->natural_key);
	if (!read_list(account, result, NULL, &records, &problem))
	{
		request->outcome.status = result->status;
		problem = psprintf("the record of \"%s\" with %s could not be looked up: %s", request->resource, named, problem);
		if (result->outcome == HX_HTTP_ANSWERED && hx_answer_is_final(account, result->status))
			hx_answer_give_up(request, problem);
		else
			hx_answer_try_again(account, request, result, problem);
		return;
	}

	initStringInfo(&ids);
	foreach(cell, records)
	{
		Listed	   *listed = lfirst(cell);
		char	   *key = field ? hx_json_text(listed->record, field) : NULL;

		/* The filter is only trusted to save traffic. */
		if (listed->id == NULL || key == NULL || strcmp(key, request->natural_key) != 0)
			continue;
		if (deleted_place != NULL && hx_json_text(listed->record, deleted_place) != NULL)
		{
			deleted = listed->id;
			continue;
		}
		live = listed;
		count++;
		if (count <= 20)
			appendStringInfo(&ids, "%s%s", count > 1 ? ", " : "", listed->id);
	}

	if (count == 1)
	{
		request->remote_id = live->id;
		request->outcome.remote_id = live->id;
		request->step = HX_STEP_SEND;
		if (hx_outbox_first_step(account, request) == HX_STEP_LOOK_UP)
			request->step = HX_STEP_LOOK_UP;
	}
	else if (count > 1)
		hx_answer_give_up(request, psprintf("%d records of \"%s\" have %s: %s%s; name the one that is meant by its id",
											count, request->resource, named, ids.data, count > 20 ? ", ..." : ""));
	else if (awaited != NIL)
		hx_answer_try_again(account, request, result,
							psprintf("no record of \"%s\" has %s yet: request %s is still to create it",
									 request->resource, named, (char *) linitial(awaited)));
	else if (deleted != NULL && operation != NULL && hx_json_part(operation, "gone") != NULL)
	{
		request->remote_id = deleted;
		hx_answer_deliver(request);
	}
	else if (deleted != NULL)
		hx_answer_give_up(request, psprintf("the record of \"%s\" with %s, %s, is deleted",
											request->resource, named, deleted));
	else
		hx_answer_give_up(request, psprintf("no record of \"%s\" has %s", request->resource, named));
}

/* ---- has it been made ---- */

/* The records a look-up found: which is the request's own? */
typedef struct Candidates
{
	const HxRequest *request;
	Jsonb	   *resource;
	Jsonb	   *operation;
	List	   *known_ids;		/* of what other requests made */
	bool		take_older;		/* records from before the request, too */
	Listed	   *best;			/* the newest one so far; NULL: none */
} Candidates;

/* Was a record made before the request was? */
static bool
is_older(const Candidates *candidates, const Jsonb *record)
{
	char	   *place = hx_json_text(candidates->operation, candidates->request->creates ? "created" : "verify.created");
	bool		has_stamp = hx_json_text(candidates->operation, "idempotency_header") != NULL;
	char	   *text = place ? hx_json_text(record, place) : NULL;
	TimestampTz created;

	return text != NULL && hx_record_time(candidates->resource, text, &created) &&
		TimestampDifferenceMilliseconds(created, candidates->request->created_at) >
		(has_stamp ? CLOCKS_DIFFER_MS : CLOCKS_DIFFER_NO_STAMP_MS);
}

typedef struct Comparison
{
	const HxRequest *request;
	const Jsonb *record;
	bool		same;
} Comparison;

static void
compare_field(const char *name, const JsonbValue *value, void *arg)
{
	Comparison *comparison = arg;
	char	   *wanted = hx_json_text(comparison->request->body, name);

	/* What is empty or false may be left out of a record. */
	if (wanted != NULL && strcmp(wanted, "false") == 0 &&
		hx_answer_texts(comparison->record, hx_json_value_text(value)) == NIL)
		return;
	if (wanted != NULL && !holds_text(comparison->record, hx_json_value_text(value), wanted))
		comparison->same = false;
}

/* Does a record have at a place what it should, or no such place? */
static bool
fits(const Jsonb *record, const char *place, const char *wanted)
{
	char	   *text = place ? hx_json_text(record, place) : NULL;

	return text == NULL || pg_strcasecmp(text, wanted) == 0;
}

/*
 * The MD5 of a request's content in hexadecimal, or NULL.  PostgreSQL's hashes
 * need a resource owner, and outside a transaction there is none.
 */
static char *
content_md5(const HxRequest *request)
{
	ResourceOwner before = CurrentResourceOwner;
	ResourceOwner owner = ResourceOwnerCreate(before, "hubex content");
	char	   *md5 = palloc0(MD5_HEX_LEN + 1);
	const char *problem;
	bool		made = false;

	CurrentResourceOwner = owner;
	PG_TRY();
	{
		made = pg_md5_hash(request->content, request->content_len, md5, &problem);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = before;
		ResourceOwnerRelease(owner, RESOURCE_RELEASE_BEFORE_LOCKS, false, false);
		ResourceOwnerDelete(owner);
	}
	PG_END_TRY();
	return made ? md5 : NULL;
}

/* Is a file the one that was sent, as far as the record of it tells? */
static bool
holds_content(const Jsonb *record, const Jsonb *operation, const HxRequest *request)
{
	char	   *md5_place = hx_json_text(operation, "verify.md5");
	char	   *md5;

	if (!fits(record, hx_json_text(operation, "verify.size"), psprintf("%zu", request->content_len)))
		return false;
	if (md5_place == NULL || hx_json_text(record, md5_place) == NULL)
		return true;
	md5 = content_md5(request);
	return md5 == NULL || fits(record, md5_place, md5);
}

/* Does a thing look like what the request was to make? */
static bool
looks_like(const Candidates *candidates, const Jsonb *record)
{
	const HxRequest *request = candidates->request;
	Comparison	comparison = {request, record, true};

	/* The filter is only trusted to save traffic. */
	if (request->creates)
	{
		char	   *key = hx_json_text(record, hx_json_text(candidates->operation, "natural_key"));

		return key != NULL && strcmp(key, request->natural_key) == 0;
	}
	hx_json_each(hx_json_part(candidates->operation, "verify.equal"), compare_field, &comparison);
	return comparison.same &&
		(!request->has_content || holds_content(record, candidates->operation, request));
}

/*
 * Considers one record.  Natural keys and texts are not unique there, and
 * somebody else may have used them: what other requests made and what is older
 * than the request is not its own, and of the rest the newest is, by its id.
 */
static void
consider(Candidates *candidates, Listed *listed)
{
	Listed	   *best = candidates->best;
	ListCell   *cell;

	if (listed->id == NULL || !looks_like(candidates, listed->record))
		return;
	foreach(cell, candidates->known_ids)
		if (strcmp(lfirst(cell), listed->id) == 0)
			return;
	if (!candidates->take_older && is_older(candidates, listed->record))
		return;
	if (best == NULL || strlen(listed->id) > strlen(best->id) ||
		(strlen(listed->id) == strlen(best->id) && strcmp(listed->id, best->id) > 0))
		candidates->best = listed;
}

/*
 * Judges whether what a request was to make is in the list.  outcome.error,
 * where set, says what led here; outcome.status is still that of the request
 * itself, 0 if it has not been sent since.
 */
static void
judge_made(const HxAccount *account, HxRequest *request, const HxHttpResult *result, List *records, List *known_ids)
{
	Candidates	candidates = {.request = request,.known_ids = known_ids};
	HxOutcome  *outcome = &request->outcome;
	bool		refused;
	char	   *number;
	ListCell   *cell;

	candidates.resource = hx_manifest_resource(account->manifest, account->connector, request->resource);
	candidates.operation = hx_wire_operation(account, request);
	refused = request->creates && outcome->status == hx_json_int(candidates.operation, "conflict", -1);

	/*
	 * A stamp that was refused after an attempt of unknown outcome speaks for
	 * a record of ours, whatever the clocks say.
	 */
	candidates.take_older = refused && request->uncertain;
	foreach(cell, records)
		consider(&candidates, lfirst(cell));

	if (candidates.best != NULL)
	{
		hx_answer_deliver(request);
		outcome->response = NULL;
		if (request->creates)
		{
			number = hx_json_text(candidates.operation, "number");
			outcome->remote_id = candidates.best->id;
			outcome->remote_number = number ? hx_json_text(candidates.best->record, number) : NULL;
		}
		else
			outcome->remote_number = candidates.best->id;
	}
	else if (refused)
	{
		request->step = HX_STEP_DONE;
		outcome->verdict = HX_DEAD;
		outcome->uncertain = false;
	}
	else if (outcome->status >= 200 && outcome->status < 300)
	{
		/* It said it was made, so give the list time to show it. */
		outcome->uncertain = true;
		hx_answer_try_again(account, request, result, psprintf("%s; not to be found yet", outcome->error));
	}
	else
	{
		outcome->error = NULL;
		request->step = HX_STEP_SEND;
	}
}

/* ---- is it in the state that was asked for ---- */

static void
check_present(const char *name, const JsonbValue *value, void *arg)
{
	Comparison *comparison = arg;

	if (hx_json_text(comparison->request->body, name) != NULL &&
		hx_answer_texts(comparison->record, hx_json_value_text(value)) == NIL)
		comparison->same = false;
}

/* Is a record as the request wants it? */
static bool
is_as_wanted(const Jsonb *verify, const HxRequest *request, const Jsonb *record)
{
	Comparison	comparison = {request, record, true};
	ListCell   *cell;

	hx_json_each(hx_json_part(verify, "equal"), compare_field, &comparison);
	hx_json_each(hx_json_part(verify, "present_if"), check_present, &comparison);
	foreach(cell, hx_json_elements(hx_json_part(verify, "present")))
		if (hx_answer_texts(record, hx_json_value_text(lfirst(cell))) == NIL)
			comparison.same = false;
	return comparison.same;
}

static void
judge_state(const HxAccount *account, const Jsonb *verify, HxRequest *request, const HxHttpResult *result,
			List *records)
{
	HxOutcome  *outcome = &request->outcome;
	ListCell   *cell;

	foreach(cell, records)
	{
		Listed	   *listed = lfirst(cell);

		if (listed->id != NULL && strcmp(listed->id, request->remote_id) == 0 &&
			is_as_wanted(verify, request, listed->record))
		{
			hx_answer_deliver(request);
			outcome->response = NULL;
			return;
		}
	}
	if (outcome->status >= 200 && outcome->status < 300 && outcome->error != NULL)
	{
		/* It seemed to be done, so give the list time to show it. */
		outcome->uncertain = true;
		hx_answer_try_again(account, request, result, psprintf("%s; not to be seen yet", outcome->error));
		return;
	}

	/* Of a batch it was one of those that were refused: alone it is told why. */
	if (outcome->status >= 200 && outcome->status < 300)
		request->most = 1;
	outcome->error = NULL;
	outcome->status = 0;
	outcome->uncertain = request->uncertain;
	request->step = HX_STEP_SEND;
}

/*
 * Judges the answer to a look-up of requests: a creation, message or file by
 * itself, states of records together.
 */
void
hx_reconcile_looked_up(const HxAccount *account, List *requests, const HxHttpResult *result, List *known_ids)
{
	HxRequest  *first = linitial(requests);
	Jsonb	   *operation = hx_wire_operation(account, first);
	Jsonb	   *verify = hx_json_part(operation, "verify");
	bool		of_states = !first->creates && hx_json_text(verify, "filter") != NULL;
	char	   *what = first->creates ? hx_json_text(operation, "natural_key") : hx_json_text(verify, "path");
	char	   *id_place = first->creates ? NULL : hx_json_text(verify, "id");
	List	   *records;
	char	   *problem;
	ListCell   *cell;
	bool		readable = read_list(account, result, id_place, &records, &problem);

	/* What hangs on a record that is not there is not there either. */
	if (!readable && !first->creates && !of_states && result->outcome == HX_HTTP_ANSWERED &&
		(result->status == 404 || result->status == 410))
		readable = true;

	foreach(cell, requests)
	{
		HxRequest  *request = lfirst(cell);
		HxOutcome  *outcome = &request->outcome;

		if (!readable)
		{
			outcome->uncertain = true;
			outcome->remote_id = NULL;
			hx_answer_try_again(account, request, result,
								psprintf("%s%scould not be looked up by %s: %s", outcome->error ? outcome->error : "",
										 outcome->error ? "; " : "", what, problem));
		}
		else if (of_states)
			judge_state(account, verify, request, result, records);
		else
			judge_made(account, request, result, records, known_ids);
	}
}
