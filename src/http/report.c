/*-------------------------------------------------------------------------
 *
 * report.c
 *	  A result as an error of PostgreSQL.
 *
 * The one place where a fault or a status becomes an SQLSTATE.  The primary
 * message is fixed, so that it can be searched for and counted; what differs
 * from case to case, above all the remote side's own words, is in the DETAIL.
 * Those words are anybody's: they are cut, put on one line and made valid in
 * the server's encoding, whatever bytes came.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "http/http.h"

#define SAFE_TEXT_OUT	500		/* bytes that are shown */
#define SAFE_TEXT_IN	4000	/* bytes that are looked at for them */

/* What is said of a fault, or of the statuses from one to another. */
typedef struct HxReport
{
	int			from;
	int			to;
	int			sqlstate;
	const char *message;
	const char *hint;
} HxReport;

static const HxReport fault_reports[] = {
	{
		HX_HTTP_DNS, HX_HTTP_DNS, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"could not look up the host of the remote service",
		"Check the option \"url\" of the foreign server."
	},
	{
		HX_HTTP_CONNECT, HX_HTTP_CONNECT, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"could not connect to the remote service",
		NULL
	},
	{
		HX_HTTP_TLS, HX_HTTP_TLS, ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"could not make a secure connection to the remote service",
		"If its certificate comes from an authority that the system does not know, name a file with that authority's certificate in the option \"ca_file\" of the foreign server."
	},
	{
		HX_HTTP_TIMEOUT, HX_HTTP_TIMEOUT, ERRCODE_CONNECTION_FAILURE,
		"request to the remote service timed out",
		"The options \"timeout\" and \"connect_timeout\" of the foreign server set how long it may take."
	},
	{
		HX_HTTP_CLOSED, HX_HTTP_CLOSED, ERRCODE_CONNECTION_FAILURE,
		"connection to the remote service was lost",
		NULL
	},
	{
		HX_HTTP_TOO_LARGE, HX_HTTP_TOO_LARGE, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
		"answer of the remote service is too large",
		NULL
	},
	{
		HX_HTTP_PROTOCOL, HX_HTTP_PROTOCOL, ERRCODE_PROTOCOL_VIOLATION,
		"remote service did not answer in valid HTTP",
		"Check the option \"url\" of the foreign server, its port too."
	},
	{
		HX_HTTP_FORBIDDEN_ADDRESS, HX_HTTP_FORBIDDEN_ADDRESS,
		ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
		"plain http is not allowed to this address",
		"Use https. The option \"allow_http\" of the foreign server permits sending everything readable."
	},
	{
		HX_HTTP_FORBIDDEN_URL, HX_HTTP_FORBIDDEN_URL, ERRCODE_INVALID_PARAMETER_VALUE,
		"invalid URL of a remote service",
		NULL
	},
	{
		HX_HTTP_MEMORY, HX_HTTP_MEMORY, ERRCODE_OUT_OF_MEMORY,
		"out of memory during a request to the remote service",
		NULL
	},
	{
		0, INT_MAX, ERRCODE_FDW_ERROR,
		"request to the remote service failed",
		NULL
	},
};

static const HxReport status_reports[] = {
	{
		300, 399, ERRCODE_PROTOCOL_VIOLATION,
		"remote service answered with a redirect",
		"Redirects are not followed: give the final address in the option \"url\" of the foreign server."
	},
	{
		401, 401, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
		"remote service refused the sign-in",
		"Check the credentials in the user mapping."
	},
	{
		403, 403, ERRCODE_INSUFFICIENT_PRIVILEGE,
		"remote service denied the request",
		"Check what the account in the user mapping may do there."
	},
	{
		404, 404, ERRCODE_FDW_TABLE_NOT_FOUND,
		"remote service does not know the resource",
		NULL
	},
	{
		429, 429, ERRCODE_INSUFFICIENT_RESOURCES,
		"remote service allows no more requests for now",
		"The option \"rate_limit\" of the foreign server keeps hubex below the account's limit."
	},
	{
		400, 499, ERRCODE_FDW_UNABLE_TO_CREATE_EXECUTION,
		"remote service refused the request",
		NULL
	},
	{
		500, 599, ERRCODE_FDW_UNABLE_TO_CREATE_REPLY,
		"remote service failed to handle the request",
		NULL
	},
	{
		0, INT_MAX, ERRCODE_PROTOCOL_VIOLATION,
		"remote service answered in an unexpected way",
		NULL
	},
};

static const HxReport *find_report(const HxReport *reports, int number);
static char *detail_of(const HxHttpResult *result, const char *remote_message);
static char *safe_text(const char *bytes, size_t len, int encoding);
static bool is_unseen(const unsigned char *c, int len, int encoding);
static bool append_converted(StringInfo out, const char *c, int len, Oid conversion);
static Oid	conversion_from_utf8(void);

/*
 * Reports how a transfer ended, if an interrupt does not end the query first.
 * remote_message, in the server's encoding, is what the remote side said if
 * the caller knows; else the start of the answer's body stands for it.
 * Returns only if elevel is below ERROR.
 */
void
hx_http_report(int elevel, const HxHttpResult *result, const char *remote_message)
{
	const HxReport *report;
	char	   *detail;

	CHECK_FOR_INTERRUPTS();

	if (result->fault != HX_HTTP_OK)
		report = find_report(fault_reports, result->fault);
	else
		report = find_report(status_reports, Max(result->status, 0));
	detail = detail_of(result, remote_message);
	ereport(elevel,
			(errcode(report->sqlstate),
			 errmsg_internal("%s", report->message),
			 errdetail_internal("%s", detail),
			 report->hint != NULL ? errhint("%s", report->hint) : 0));
}

/* The first that fits; the last one fits all. */
static const HxReport *
find_report(const HxReport *reports, int number)
{
	while (number < reports->from || number > reports->to)
		reports++;
	return reports;
}

/* Status or step, the words for it, and what is to be known beside. */
static char *
detail_of(const HxHttpResult *result, const char *remote_message)
{
	StringInfoData detail;
	const char *words;
	const char *end;

	if (remote_message != NULL)
		words = safe_text(remote_message, strlen(remote_message), GetDatabaseEncoding());
	else if (result->fault != HX_HTTP_OK && result->error != NULL)
		words = result->error;
	else
		words = hx_http_safe_text(result->body, result->body_len);

	initStringInfo(&detail);
	if (result->fault == HX_HTTP_OK)
		appendStringInfo(&detail, "The remote service answered with status %d", result->status);
	else
	{
		appendStringInfo(&detail, "The step was \"%s\"", result->stage);
		if (result->status != 0)
			appendStringInfo(&detail, ", the status %d", result->status);
	}
	if (words[0] != '\0')
		appendStringInfo(&detail, ": %s", words);
	end = detail.data + detail.len - 1;
	if (*end != '.' && *end != '!' && *end != '?')
		appendStringInfoChar(&detail, '.');

	if (result->retry_after_ms > 0)
		appendStringInfo(&detail, " It asks to wait for " INT64_FORMAT " s.",
						 (result->retry_after_ms + 999) / 1000);
	if (result->outcome == HX_HTTP_UNKNOWN && !result->harmless)
		appendStringInfoString(&detail, " It is not known whether the remote service acted on the request.");
	return detail.data;
}

/*
 * Makes remote bytes fit to be shown: at most 500 bytes, one line, nothing
 * unseen, valid in the server's encoding.  They are taken for UTF-8; what is
 * not becomes a question mark.  Never fails for what the bytes are.  Outside
 * a transaction a server whose encoding is not UTF-8 sees ASCII only.
 */
char *
hx_http_safe_text(const char *bytes, size_t len)
{
	return safe_text(bytes, len, PG_UTF8);
}

static char *
safe_text(const char *bytes, size_t len, int encoding)
{
	StringInfoData out;
	const char *end = bytes + Min(len, SAFE_TEXT_IN);
	Oid			conversion = InvalidOid;
	bool		as_is = encoding == GetDatabaseEncoding() || GetDatabaseEncoding() == PG_SQL_ASCII;
	bool		space = false;
	int			mark = 0;

	if (!as_is)
		conversion = conversion_from_utf8();
	initStringInfo(&out);
	while (bytes < end)
	{
		int			width;

		if ((unsigned char) *bytes <= ' ' || *bytes == 0x7f)
		{
			space = out.len > 0;
			bytes++;
			continue;
		}
		if (space)
			appendStringInfoChar(&out, ' ');
		space = false;

		width = pg_encoding_verifymbchar(encoding, bytes, end - bytes);
		if (width <= 0 || is_unseen((const unsigned char *) bytes, width, encoding))
			appendStringInfoChar(&out, '?');
		else if (as_is || (width == 1 && !IS_HIGHBIT_SET(*bytes)))
			appendBinaryStringInfo(&out, bytes, width);
		else if (!append_converted(&out, bytes, width, conversion))
			appendStringInfoChar(&out, '?');
		bytes += Max(width, 1);

		if (out.len <= SAFE_TEXT_OUT - 3)
			mark = out.len;
		else if (out.len > SAFE_TEXT_OUT)
		{
			out.len = mark;
			appendStringInfoString(&out, "...");
			break;
		}
	}
	return out.data;
}

/*
 * Tells whether a character would not be seen, or would change how others are
 * seen: C1 controls, separators of lines, marks of direction.
 */
static bool
is_unseen(const unsigned char *c, int len, int encoding)
{
	pg_wchar	code;

	if (encoding != PG_UTF8 || len < 2)
		return false;
	code = utf8_to_unicode(c);
	return (code >= 0x80 && code <= 0x9f) || (code >= 0x200b && code <= 0x200f) ||
		(code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) ||
		code == 0xfeff;
}

/* Appends one character of UTF-8 in the server's encoding, if it has it. */
static bool
append_converted(StringInfo out, const char *c, int len, Oid conversion)
{
	unsigned char in[8];
	unsigned char converted[8 * MAX_CONVERSION_GROWTH + 1];

	if (!OidIsValid(conversion) || len >= (int) sizeof(in))
		return false;
	memcpy(in, c, len);
	in[len] = '\0';
	if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, GetDatabaseEncoding(),
									  in, len, converted, sizeof(converted), true) != len)
		return false;
	appendStringInfoString(out, (char *) converted);
	return true;
}

/* The conversion is found in a catalog, which only a transaction can read. */
static Oid
conversion_from_utf8(void)
{
	if (!IsTransactionState())
		return InvalidOid;
	return FindDefaultConversionProc(PG_UTF8, GetDatabaseEncoding());
}
