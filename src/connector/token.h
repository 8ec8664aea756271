/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Access tokens, one for all processes of the server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_TOKEN_H
#define HX_TOKEN_H

#include "storage/lwlock.h"

#define HX_TOKEN_KEY_LEN	32
#define HX_TOKEN_MAX		8192	/* bytes; a JWT of a system with many claims has 4 kB */

/* How often to ask for a token that another process is fetching. */
#define HX_TOKEN_POLL_MS	20

typedef enum HxTokenAnswer
{
	HX_TOKEN_READY,				/* here it is */
	HX_TOKEN_SIGN_IN,			/* the caller is to sign in, then store or fail */
	HX_TOKEN_WAIT				/* another is signing in; ask again soon */
} HxTokenAnswer;

typedef struct HxToken
{
	uint64		version;		/* to be named in hx_token_refuse */
	char	   *text;
} HxToken;

extern Size hx_token_shmem_size(void);
extern void hx_token_shmem_init(void *memory, bool found, LWLock *lock);

extern HxTokenAnswer hx_token_take(const uint8 *key, HxToken *token);
extern void hx_token_store(const uint8 *key, const char *text, int64 life_seconds, int64 renew_before);
extern void hx_token_give_up(const uint8 *key);
extern void hx_token_give_up_all(void);
extern void hx_token_refuse(const uint8 *key, uint64 version);

#endif							/* HX_TOKEN_H */
