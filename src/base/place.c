/*-------------------------------------------------------------------------
 *
 * place.c
 *	  Where this server's files are: what tells them from a copy of them.
 *
 * The file PG_VERSION of the data directory is written by initdb, pg_basebackup
 * or whatever else makes a copy, and by nobody ever after.  So its inode number
 * and, where the file system has one, the time it was made at stay the same
 * for as long as these are the same files, and are others in any copy made file
 * by file: cp, rsync, tar, pg_basebackup, a restored backup.
 *
 * What else there is to go by changes under a server that is still the same:
 * device numbers with a reboot, host names and machine ids with a container,
 * paths with a mount point.  A copy made below the file system (a snapshot of a
 * disk, an image) has all of it in common with its original and cannot be
 * known by this.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "access/xlog.h"
#include "miscadmin.h"

#include "base/place.h"

#define PLACE_FILE		"PG_VERSION"
#define PLACE_MAX		64

/*
 * Did the postmaster begin as a standby?  It sees that as it loads the library
 * and every process inherits it, those after a crash of its children too.  The
 * file that says so is gone once the standby is promoted.
 */
static bool began_as_standby = false;

/* Looks whether this server begins as a standby; the postmaster calls it. */
void
hx_place_look_for_standby(void)
{
	struct stat found;

	began_as_standby = stat(STANDBY_SIGNAL_FILE, &found) == 0;
}

/* Did it?  False as well where hubex was not preloaded. */
bool
hx_place_began_as_standby(void)
{
	return began_as_standby;
}

/* Writes what identifies the file: its inode, and when it was made. */
static void
describe(char *place)
{
#ifdef STATX_BTIME
	struct statx found;

	if (statx(AT_FDCWD, PLACE_FILE, 0, STATX_INO | STATX_BTIME, &found) == 0)
	{
		if (found.stx_mask & STATX_BTIME)
			snprintf(place, PLACE_MAX, "%llu %lld.%09u", (unsigned long long) found.stx_ino,
					 (long long) found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
		else
			snprintf(place, PLACE_MAX, "%llu", (unsigned long long) found.stx_ino);
		return;
	}
#endif
	{
		struct stat plain;

		if (stat(PLACE_FILE, &plain) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not stat file \"%s\": %m", PLACE_FILE)));
		snprintf(place, PLACE_MAX, "%llu", (unsigned long long) plain.st_ino);
	}
}

/* This data directory's place, as text that is kept in the database. */
const char *
hx_place(void)
{
	/* It cannot change under a running process. */
	static char place[PLACE_MAX] = "";

	if (*place == '\0')
		describe(place);
	return place;
}

/*
 * Is a place, as it was noted some time, this data directory?  A system that
 * gives no time, or began or ceased to give it, is known by the inode alone.
 */
bool
hx_place_is_here(const char *place)
{
	const char *here = hx_place();
	size_t		inode = strcspn(here, " ");

	if (here[inode] == '\0' || strchr(place, ' ') == NULL)
		return strncmp(place, here, inode) == 0 && (place[inode] == '\0' || place[inode] == ' ');
	return strcmp(place, here) == 0;
}
