package migrations

// For the tests in package migrations_test, which may import pgtest.
var (
	UpFS    = up
	CheckFS = check
	LockKey = lockKey
)
