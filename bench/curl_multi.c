/*-------------------------------------------------------------------------
 *
 * curl_multi.c
 *	  The least that can be done: many requests by libcurl, and nothing else.
 *
 * This is what deliveries are compared with: the same requests, as many at a
 * time, by a program that keeps no queue, remembers nothing and loses all when
 * it ends.  It is as fast as libcurl lets it be: the socket interface with one
 * epoll set, connections kept, easy handles used again, no copies of bodies.
 *
 *	 curl_multi URL BODY FIRST COUNT CONCURRENCY [HEADER...]
 *
 * POSTs COUNT requests; {n} in URL, BODY and headers becomes their number,
 * from FIRST on.  Prints the seconds they took, the seconds of CPU, and how
 * many were not answered with 2xx, which also decides about its exit status.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#define EVENTS_A_WAIT	64
#define MAX_TEXT		16384
#define MAX_HEADERS		32

typedef struct Request
{
	CURL	   *easy;
	struct curl_slist *headers;
	char		body[MAX_TEXT];
} Request;

/* What all requests are made from. */
static const char *url_template;
static const char *body_template;
static char **header_templates;
static int	header_count;
static bool headers_vary;

static CURLM *multi;
static int	epoll_fd;
static long timer_ms = -1;		/* -1: libcurl waits for no time */
static double timer_set;
static long next_number;
static long end_number;
static long failures;

static void
fail(const char *what)
{
	fprintf(stderr, "curl_multi: %s\n", what);
	exit(2);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static double
cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
		(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Copies a template with {n} replaced; returns the length. */
static size_t
fill(char *out, const char *template, long n)
{
	char	   *end = out;

	while (*template)
	{
		if (end - out > MAX_TEXT - 32)
			fail("a text is too long");
		if (strncmp(template, "{n}", 3) == 0)
		{
			end += sprintf(end, "%ld", n);
			template += 3;
		}
		else
			*end++ = *template++;
	}
	*end = '\0';
	return end - out;
}

static struct curl_slist *
make_headers(long n)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	char		line[MAX_TEXT];

	for (int i = 0; i < header_count; i++)
	{
		fill(line, header_templates[i], n);
		headers = curl_slist_append(headers, line);
	}
	return headers;
}

static size_t
discard(char *data, size_t size, size_t count, void *arg)
{
	(void) data;
	(void) arg;
	return size * count;
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {.data.fd = fd};

	(void) easy;
	(void) arg;
	if (what == CURL_POLL_REMOVE)
	{
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events = ((what & CURL_POLL_IN) ? EPOLLIN : 0) | ((what & CURL_POLL_OUT) ? EPOLLOUT : 0);
	if (epoll_ctl(epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
		fail(strerror(errno));
	if (!known)
		curl_multi_assign(multi, fd, &epoll_fd);
	return 0;
}

static int
on_timer(CURLM *unused, long milliseconds, void *arg)
{
	(void) unused;
	(void) arg;
	timer_ms = milliseconds;
	timer_set = now();
	return 0;
}

/* Gives a handle its next request; false when there is none left. */
static bool
start_next(Request *request)
{
	char		url[MAX_TEXT];
	size_t		length;
	long		n = next_number;

	if (n >= end_number)
		return false;
	next_number++;
	fill(url, url_template, n);
	length = fill(request->body, body_template, n);
	curl_easy_setopt(request->easy, CURLOPT_URL, url);
	curl_easy_setopt(request->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) length);
	if (headers_vary || request->headers == NULL)
	{
		struct curl_slist *headers = make_headers(n);

		curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, headers);
		curl_slist_free_all(request->headers);
		request->headers = headers;
	}
	if (curl_multi_add_handle(multi, request->easy) != CURLM_OK)
		fail("out of memory");
	return true;
}

static void
prepare(Request *request)
{
	request->easy = curl_easy_init();
	if (request->easy == NULL)
		fail("out of memory");
	curl_easy_setopt(request->easy, CURLOPT_PRIVATE, request);
	curl_easy_setopt(request->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(request->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(request->easy, CURLOPT_POSTFIELDS, request->body);
	curl_easy_setopt(request->easy, CURLOPT_WRITEFUNCTION, discard);
	curl_easy_setopt(request->easy, CURLOPT_USERAGENT, "hubex");
	curl_easy_setopt(request->easy, CURLOPT_ACCEPT_ENCODING, "");
	curl_easy_setopt(request->easy, CURLOPT_TCP_NODELAY, 1L);
}

/* Counts what has ended, and lets its handle go on; returns how many stopped. */
static int
collect(void)
{
	CURLMsg    *message;
	int			left;
	int			stopped = 0;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		CURLcode	result = message->data.result;
		Request    *request;
		long		status = 0;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &request);
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		if (result != CURLE_OK || status / 100 != 2)
			failures++;
		curl_multi_remove_handle(multi, easy);
		if (!start_next(request))
			stopped++;
	}
	return stopped;
}

static int
milliseconds_left(void)
{
	double		left;

	if (timer_ms <= 0)
		return (int) timer_ms;
	left = timer_ms - (now() - timer_set) * 1000;
	return left < 0 ? 0 : (int) left;
}

/* Runs until so many handles have stopped. */
static void
drive(int active)
{
	int			running;

	while (active > 0)
	{
		struct epoll_event events[EVENTS_A_WAIT];
		int			count = epoll_wait(epoll_fd, events, EVENTS_A_WAIT, milliseconds_left());

		if (count < 0 && errno != EINTR)
			fail(strerror(errno));
		for (int i = 0; i < count; i++)
		{
			uint32_t	ready = events[i].events;

			curl_multi_socket_action(multi, events[i].data.fd,
									 ((ready & EPOLLIN) ? CURL_CSELECT_IN : 0) |
									 ((ready & EPOLLOUT) ? CURL_CSELECT_OUT : 0) |
									 ((ready & (EPOLLERR | EPOLLHUP)) ? CURL_CSELECT_ERR : 0),
									 &running);
		}
		if (milliseconds_left() == 0)
		{
			timer_ms = -1;
			curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
		}
		active -= collect();
	}
}

int
main(int argc, char **argv)
{
	int			concurrency;
	int			active = 0;
	Request    *requests;
	double		started;
	double		cpu;

	if (argc < 6 || argc > 6 + MAX_HEADERS)
		fail("usage: curl_multi URL BODY FIRST COUNT CONCURRENCY [HEADER...]");
	url_template = argv[1];
	body_template = argv[2];
	next_number = atol(argv[3]);
	end_number = next_number + atol(argv[4]);
	concurrency = atoi(argv[5]);
	header_templates = argv + 6;
	header_count = argc - 6;
	for (int i = 0; i < header_count; i++)
		headers_vary |= strstr(header_templates[i], "{n}") != NULL;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	multi = curl_multi_init();
	requests = calloc(concurrency, sizeof(Request));
	if (concurrency < 1 || epoll_fd < 0 || multi == NULL || requests == NULL)
		fail("cannot begin");
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) concurrency);
	for (int i = 0; i < concurrency; i++)
		prepare(&requests[i]);

	started = now();
	cpu = cpu_seconds();
	while (active < concurrency && start_next(&requests[active]))
		active++;
	drive(active);
	printf("%.6f %.6f %ld\n", now() - started, cpu_seconds() - cpu, failures);
	return failures == 0 ? 0 : 1;
}
