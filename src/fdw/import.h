/*-------------------------------------------------------------------------
 *
 * import.h
 *	  IMPORT FOREIGN SCHEMA: what is to be done when the library is loaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef HX_IMPORT_H
#define HX_IMPORT_H

extern void hx_import_install(void);

#endif							/* HX_IMPORT_H */
