/*-------------------------------------------------------------------------
 *
 * curl_result.c
 *	  How a transfer ended.
 *
 * Three questions, answered apart: what did the remote side possibly see
 * (outcome), what went wrong (fault), and at which step (stage).
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "http/curl_private.h"

#define SMALL_BODY		65536	/* what is kept of an answer that is not whole */
#define TOO_LARGE_CODE	100		/* CURLE_TOO_LARGE, which 8.6 brought */

static HxHttpFault fault_of(const HxCurlTransfer *t);
static bool line_too_long(const HxCurlTransfer *t);
static const char *stage_of(const HxCurlTransfer *t);
static int64_t retry_after_ms(const HxCurlTransfer *t);
static int64_t total_us(const HxCurlTransfer *t);

/* Says how a transfer that has finished ended. */
void
hx_curl_transfer_result(HxCurlTransfer *t, HxCurlResult *result)
{
	long		status = 0;

	/* before it has sent anything, a handle may tell of the one before */
	memset(result, 0, sizeof(*result));
	if (t->times_sent > 0)
		(void) curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	result->status = (int) status;
	result->fault = fault_of(t);
	result->stage = stage_of(t);
	result->retry_after_ms = retry_after_ms(t);
	result->total_us = total_us(t);
	if (!t->streaming)
	{
		result->body = t->answer;
		result->body_len = t->answer_len;
	}

	if (result->fault == HX_HTTP_OK)
	{
		result->outcome = HX_HTTP_ANSWERED;
		return;
	}
	result->outcome = t->times_sent > 0 ? HX_HTTP_UNKNOWN : HX_HTTP_NOT_SENT;
	if (result->body_len > SMALL_BODY)
		result->body_len = SMALL_BODY;

	if (t->problem != NULL)
		result->error = t->problem;
	else if (result->fault == HX_HTTP_FORBIDDEN_ADDRESS)
		result->error = "plain http to an address that is not loopback";
	else if ((t->resend_refused || t->found_closed) && result->fault == HX_HTTP_CLOSED)
		result->error = "the connection was closed before an answer came";
	else if (result->fault == HX_HTTP_TOO_LARGE)
		result->error = t->header_done || t->code == CURLE_FILESIZE_EXCEEDED ? "the body of the answer is over the limit" :
			"the header of the answer is over the limit";
	else if (t->no_memory)
		result->error = "out of memory";
	else
		result->error = t->error[0] != '\0' ? t->error : curl_easy_strerror(t->code);
}

static HxHttpFault
fault_of(const HxCurlTransfer *t)
{
	if (t->refused != HX_HTTP_OK)
		return t->refused;
	if (t->code == CURLE_OK)
		return HX_HTTP_OK;
	if (t->found_closed || t->resend_refused)
		return HX_HTTP_CLOSED;
	if (t->sockets_refused > 0 && t->sockets_refused == t->sockets_tried)
		return HX_HTTP_FORBIDDEN_ADDRESS;
	if (t->too_large)
		return HX_HTTP_TOO_LARGE;
	if (t->no_memory)
		return HX_HTTP_MEMORY;

	switch ((int) t->code)
	{
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
			return HX_HTTP_DNS;
		case CURLE_COULDNT_CONNECT:
		case CURLE_PROXY:
			return HX_HTTP_CONNECT;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CRL_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_CLIENTCERT:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_ENGINE_INITFAILED:
			return HX_HTTP_TLS;
		case CURLE_OPERATION_TIMEDOUT:
			return HX_HTTP_TIMEOUT;
		case CURLE_FILESIZE_EXCEEDED:
		case TOO_LARGE_CODE:
			return HX_HTTP_TOO_LARGE;
		case CURLE_URL_MALFORMAT:
			return HX_HTTP_FORBIDDEN_URL;
		case CURLE_OUT_OF_MEMORY:
			return line_too_long(t) ? HX_HTTP_TOO_LARGE : HX_HTTP_MEMORY;
		case CURLE_UNSUPPORTED_PROTOCOL:	/* an answer that is not HTTP/1 */
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_WRITE_ERROR: /* the decoder's; ours were seen above */
		case CURLE_HTTP_RETURNED_ERROR:
			return HX_HTTP_PROTOCOL;
		case CURLE_RECV_ERROR:
			/* bad chunks have no code of their own, only these words */
			return strstr(t->error, "chunk") != NULL ? HX_HTTP_PROTOCOL : HX_HTTP_CLOSED;
		case CURLE_GOT_NOTHING:
		case CURLE_SEND_ERROR:
		case CURLE_SEND_FAIL_REWIND:
		case CURLE_PARTIAL_FILE:
		case CURLE_SSL_SHUTDOWN_FAILED:
			return HX_HTTP_CLOSED;
		default:
			return HX_HTTP_OTHER;
	}
}

/*
 * Until 8.6 libcurl said that memory was out for a header line over a limit of
 * its own.  In the middle of a header that is by far the likelier reason.
 */
static bool
line_too_long(const HxCurlTransfer *t)
{
	return t->code == CURLE_OUT_OF_MEMORY && t->header_bytes > 0 && !t->header_done;
}

/*
 * The step that the transfer was at when it ended.  Where libcurl would have
 * sent the request again it has forgotten how far it had come; nearly always
 * that was all of it.
 */
static const char *
stage_of(const HxCurlTransfer *t)
{
	curl_off_t	body_sent = 0;
	long		request_bytes = 0;

	if (t->header_done || t->code == CURLE_FILESIZE_EXCEEDED)
		return "body";
	if (t->header_bytes > 0)
		return "answer";
	if (t->times_sent > 0)
	{
		if (t->resend_refused)
			return "answer";
		(void) curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request_bytes);
		(void) curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &body_sent);
		return (size_t) body_sent < t->body_len || request_bytes == 0 ? "request" : "answer";
	}
	if (t->connected || fault_of(t) == HX_HTTP_TLS)
		return "TLS";
	return t->sockets_tried > 0 ? "connect" : "name lookup";
}

/* Retry-After, in seconds or as a date; libcurl says 0 also for "none". */
static int64_t
retry_after_ms(const HxCurlTransfer *t)
{
	struct curl_header *header;
	curl_off_t	seconds = 0;

	if (t->times_sent == 0 ||
		curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &seconds) != CURLE_OK)
		return -1;
	if (seconds > 0)
		return (int64_t) seconds > INT64_MAX / 1000 ? INT64_MAX : (int64_t) seconds * 1000;
	if (curl_easy_header(t->easy, "Retry-After", 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
		(header->value[0] == '0' || curl_getdate(header->value, NULL) != -1))
		return 0;
	return -1;
}

static int64_t
total_us(const HxCurlTransfer *t)
{
	curl_off_t	us = 0;

	/* not what was refused or abandoned */
	if (t->problem == NULL)
		(void) curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &us);
	return (int64_t) us;
}

/* The next header of the last answer; the cursor starts as NULL. */
bool
hx_curl_transfer_next_header(HxCurlTransfer *t, void **cursor,
							 const char **name, const char **value)
{
	struct curl_header *header;

	if (t->times_sent == 0)
		return false;
	header = curl_easy_nextheader(t->easy, CURLH_HEADER, -1, *cursor);
	if (header == NULL)
		return false;
	*cursor = header;
	*name = header->name;
	*value = header->value;
	return true;
}
