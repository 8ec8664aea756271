/*-------------------------------------------------------------------------
 *
 * curl_callbacks.c
 *	  What libcurl asks and tells while a transfer runs.
 *
 * What is sent twice.  When a connection that was kept alive dies before a
 * byte of the answer, libcurl takes it for one that had been idle too long
 * and sends the request again on a new one, a POST too.  For hubex that would
 * be a task created twice.  Therefore a request that is not repeatable is
 * handed to the wire at most once, for which there are three guards: the
 * pre-request callback, which libcurl runs each time just before it writes a
 * request, refuses the second time; from the first time on the transfer may
 * not take a kept connection; and no further socket is opened for it.  The
 * first of these needs neither of the others, nor they it, and it also tells
 * surely whether anything can have been sent.
 *
 * What would be lost.  Newer versions reuse a connection of a second ago
 * without looking whether the server has closed it since, and then nobody
 * knows whether the request arrived.  So it is looked at here before the first
 * byte is sent, and the transfer begins again if it is closed.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/curl_private.h"
#include "http/guard.h"

#define FIRST_BODY_ALLOCATION	16384

/* not everywhere; the end of the data serves then */
#ifndef POLLRDHUP
#define POLLRDHUP	0
#endif

static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address);
static int	on_close_socket(void *user, curl_socket_t fd);
static bool remember_socket(HxCurl *curl, int fd);
static bool connection_closed(HxCurlTransfer *t, int local_port, int remote_port);
static void ask_ports(HxCurlOpen *open);
static int	socket_port(int fd, bool remote);
static int	on_request(void *user, char *remote_ip, char *local_ip, int remote_port, int local_port);
static size_t on_header(char *line, size_t size, size_t count, void *user);
static void end_header(HxCurlTransfer *t);
static size_t on_write(char *bytes, size_t size, size_t count, void *user);

/* Hands the functions below to libcurl.  False: t->code says why not. */
bool
hx_curl_set_callbacks(HxCurlTransfer *t)
{
	SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	SET(CURLOPT_OPENSOCKETDATA, t);
	SET(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	SET(CURLOPT_CLOSESOCKETDATA, t->curl);
	SET(CURLOPT_PREREQFUNCTION, on_request);
	SET(CURLOPT_PREREQDATA, t);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_WRITEFUNCTION, on_write);
	SET(CURLOPT_WRITEDATA, t);
	return true;
}

/* Opens a socket, unless its address is forbidden or it is for a second try. */
static curl_socket_t
on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
	HxCurlTransfer *t = user;
	int			type = address->socktype;
	curl_socket_t fd;

	if (purpose != CURLSOCKTYPE_IPCXN)
		return CURL_SOCKET_BAD;
	if (t->times_sent > 0 && !t->repeatable)
	{
		t->resend_refused = true;
		return CURL_SOCKET_BAD;
	}
	t->sockets_tried++;
	if (t->loopback_only && !hx_guard_loopback(&address->addr))
	{
		t->sockets_refused++;
		return CURL_SOCKET_BAD;
	}
#ifdef SOCK_CLOEXEC
	type |= SOCK_CLOEXEC;
#endif
	fd = socket(address->family, type, address->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	if (!remember_socket(t->curl, fd))
	{
		close(fd);
		return CURL_SOCKET_BAD;
	}
	t->opened[t->sockets_tried % SOCKETS_REMEMBERED] = fd;
	return fd;
}

static bool
remember_socket(HxCurl *curl, int fd)
{
	if (curl->open_count == curl->open_allocated)
	{
		int			allocated = curl->open_allocated + 32;
		HxCurlOpen *open = realloc(curl->open, allocated * sizeof(HxCurlOpen));

		if (open == NULL)
			return false;
		curl->open = open;
		curl->open_allocated = allocated;
	}
	memset(&curl->open[curl->open_count], 0, sizeof(HxCurlOpen));
	curl->open[curl->open_count++].fd = fd;
	return true;
}

/* The pool, not the transfer: connections outlive what opened them. */
static int
on_close_socket(void *user, curl_socket_t fd)
{
	HxCurl	   *curl = user;

	for (int i = 0; i < curl->open_count; i++)
	{
		if (curl->open[i].fd == fd)
		{
			curl->open[i] = curl->open[--curl->open_count];
			break;
		}
	}
	hx_curl_forget_socket(curl, fd);
	return close(fd);
}

/* Runs just before a request is written, on a new or a kept connection. */
static int
on_request(void *user, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	HxCurlTransfer *t = user;

	(void) local_ip;
	if (t->times_sent > 0 && !t->repeatable)
	{
		t->resend_refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	if (t->loopback_only && !hx_guard_loopback_host(remote_ip))
	{
		/* a kept connection of a transfer that was allowed more */
		t->sockets_tried = t->sockets_refused = 1;
		return CURL_PREREQFUNC_ABORT;
	}
	if (t->sockets_tried == 0 && !t->repeatable &&
		connection_closed(t, local_port, remote_port))
	{
		t->found_closed = true;
		return CURL_PREREQFUNC_ABORT;
	}
	if (!t->repeatable &&
		curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK)
		return CURL_PREREQFUNC_ABORT;
	t->times_sent++;
	return CURL_PREREQFUNC_OK;
}

/*
 * Tells whether the other side has closed the kept connection between two
 * ports, or has sent on it what nobody asked for.  (Over TLS a session ticket
 * may be waiting there by right.)
 */
static bool
connection_closed(HxCurlTransfer *t, int local_port, int remote_port)
{
	for (int i = 0; i < t->curl->open_count; i++)
	{
		HxCurlOpen *open = &t->curl->open[i];
		struct pollfd look = {.fd = open->fd,.events = POLLIN | POLLRDHUP};
		char		byte;

		if (open->local_port == 0)
			ask_ports(open);
		if (open->local_port != local_port || open->remote_port != remote_port)
			continue;
		if (poll(&look, 1, 0) <= 0)
			return false;
		if ((look.revents & ~POLLIN) != 0 || !t->host->is_https)
			return true;
		return recv(look.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
	}
	return false;
}

/* Notes the ports of a connection, unless it is still being made. */
static void
ask_ports(HxCurlOpen *open)
{
	int			remote_port = socket_port(open->fd, true);
	int			local_port = remote_port > 0 ? socket_port(open->fd, false) : -1;

	if (local_port <= 0)
		return;
	open->local_port = local_port;
	open->remote_port = remote_port;
}

/* The port at one end of a socket. */
static int
socket_port(int fd, bool remote)
{
	struct sockaddr_storage address = {0};
	socklen_t	len = sizeof(address);
	int			failed;

	if (remote)
		failed = getpeername(fd, (struct sockaddr *) &address, &len);
	else
		failed = getsockname(fd, (struct sockaddr *) &address, &len);
	if (failed)
		return -1;
	if (address.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *) &address)->sin_port);
	if (address.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *) &address)->sin6_port);
	return -1;
}

/* Counts the header; libcurl keeps the lines.  Trailers come here as well. */
static size_t
on_header(char *line, size_t size, size_t count, void *user)
{
	HxCurlTransfer *t = user;
	size_t		len = size * count;

	t->header_bytes += len;
	if (t->header_bytes > HX_HTTP_MAX_HEADERS)
	{
		t->too_large = true;
		return 0;
	}
	if (len > 9 && strncmp(line, "HTTP/", 5) == 0)
	{
		const char *space = memchr(line, ' ', len);

		t->interim = space != NULL && space + 1 < line + len && space[1] == '1';
	}
	else if (len <= 2 && (line[0] == '\r' || line[0] == '\n') && !t->interim)
		end_header(t);
	return len;
}

/* The head is whole: a success is what a stream may be made of. */
static void
end_header(HxCurlTransfer *t)
{
	long		status = 0;

	if (t->header_done)
		return;
	t->header_done = true;
	if (curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK)
		t->status = (int) status;
	t->streaming = t->window > 0 && t->status >= 200 && t->status <= 299;
}

/*
 * Keeps the answer's body, decoded already, up to its limit.  Of a stream that
 * is its window: beyond it nothing is taken, and libcurl asks again later; but
 * what comes when nothing is held is taken, whatever its size.
 */
static size_t
on_write(char *bytes, size_t size, size_t count, void *user)
{
	HxCurlTransfer *t = user;
	size_t		len = size * count;

	if (t->streaming && t->answer_len > 0 && t->answer_len - t->taken + len > t->window)
	{
		t->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (t->taken > 0 && len > t->answer_allocated - t->answer_len)
	{
		memmove(t->answer, t->answer + t->taken, t->answer_len - t->taken);
		t->answer_len -= t->taken;
		t->taken = 0;
	}
	if (len > t->max_body - t->answer_len)
	{
		t->too_large = true;
		return 0;
	}
	if (len > t->answer_allocated - t->answer_len)
	{
		size_t		allocated = t->answer_allocated == 0 ? FIRST_BODY_ALLOCATION : t->answer_allocated;
		char	   *answer;

		while (allocated - t->answer_len < len)
			allocated *= 2;
		answer = realloc(t->answer, allocated);
		if (answer == NULL)
		{
			t->no_memory = true;
			return 0;
		}
		t->answer = answer;
		t->answer_allocated = allocated;
	}
	memcpy(t->answer + t->answer_len, bytes, len);
	t->answer_len += len;
	t->body_bytes += len;
	return len;
}
