/*-------------------------------------------------------------------------
 *
 * outline.h
 *	  The outline of a record: the same JSON, without what its strings say.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_JSON_OUTLINE_H
#define HX_JSON_OUTLINE_H

/* A string of the record; names of members are strings, too. */
typedef struct HxOutlineString
{
	uint32		at;				/* its opening quote, in the outline */
	uint32		end;			/* behind its closing quote there */
	uint32		from;			/* what it says, in the record */
	uint32		len;
	bool		plain;			/* nothing in it is escaped; in the outline it
								 * is empty */
} HxOutlineString;

/* What a record may be. */
#define HX_RECORD_MAX_LEN		(64 * 1024 * 1024)
#define HX_RECORD_MAX_DEPTH		256
#define HX_RECORD_MAX_STRINGS	4000000

typedef struct HxOutline
{
	char	   *text;
	uint32		len;
	HxOutlineString *strings;
	uint32		nstrings;

	/* of its making */
	const char *excess;			/* what is too much for an outline; or NULL */
	uint32		size;
	uint32		most_strings;
	int			depth;			/* brackets open */
	bool		in_string;
	bool		plain;			/* so far */
	bool		escaped;		/* the next byte belongs to a backslash */
	uint32		from;			/* of the string at hand */
} HxOutline;

extern void hx_outline_init(HxOutline *outline);
extern void hx_outline_begin(HxOutline *outline);
extern const char *hx_outline_follow(HxOutline *outline, const char *held, uint32 held_len,
									 const char *bytes, const char *end);

#endif							/* HX_JSON_OUTLINE_H */
