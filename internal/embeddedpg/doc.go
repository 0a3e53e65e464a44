// Package embeddedpg runs a PostgreSQL server of our own for people who have
// none running: a child process that listens on a unix socket only and never
// outlives this process.
//
// The binaries are the machine's, or are fetched once. As root, which
// PostgreSQL refuses to run as, the server runs as the user postgres or nobody.
package embeddedpg
