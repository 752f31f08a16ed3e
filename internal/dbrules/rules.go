package dbrules

// flowRules follow every path of a write function (flow.go).
var flowRules = []Rule{
	{writeRecords, "the cache serves the old state until its entries expire, up to 600 s, and no test of the function itself notices",
		"after the last change, on every path that returns: v_outbox_id := accounts.record_change_v1(v_touched, '{}'). Skip it only under a test " +
			"that tells that nothing changed: the condition around the change itself, FOUND or GET DIAGNOSTICS ROW_COUNT after it, or the variable " +
			"that RETURNING ... INTO filled"},
	{writeVersion, "a client that holds an old version may overwrite a change that it never saw, and the cache may keep the older of two states",
		"PERFORM accounts.raise_user_version_v1(<user id>); or set version = version + 1 and updated_at in the UPDATE of accounts.users"},
	{writeLocks, "two writers of one user would read the same state, and both would write: version and invalidation of one are lost",
		"begin with PERFORM accounts.lock_user_v1(<user id>), or SELECT ... FROM accounts.users ... FOR NO KEY UPDATE"},
	{lockOrder, "two calls that lock the same rows in different orders wait for each other, and one fails with 40P01",
		"one SELECT ... ORDER BY <primary key> FOR NO KEY UPDATE for all rows, before the loop or the UPDATE"},
	{writeDecidable, "what a write function changes must be known, to be sure that it is recorded",
		"write plain SQL; or EXECUTE of literals, format('%I') of names and USING for values. Replace recursion of a function that writes by a loop, " +
			"and EXIT from a block by IF"},
	{touchedAgrees, "the service deletes from the cache at once what touched names; the outbox row does it again later. One that has less leaves stale entries",
		"build one variable, pass it to accounts.record_change_v1 as the last step, and return the same variable as touched and the result as outbox_id"},
}

// statementRuleList looks at the statements of a body (statements.go).
var statementRuleList = []Rule{
	{listLimit, "a list without a bound grows with the table: one call then loads everything into the memory of the server and the service",
		"ORDER BY a unique key LIMIT p_limit; or, where the rows have another bound, in the body: -- allow list-limit: <what bounds them>"},
	{listOrder, "rows that are equal in the order come in any order, so pages repeat rows and miss others",
		"ORDER BY ... and, as the last column, a unique key; ORDER BY may be left out only for SELECT FROM ... LIMIT, which counts"},
	{listOffset, "OFFSET reads and discards all rows before the page: the last page costs as much as the table",
		"continue after the last key: WHERE id > p_after_id ORDER BY id LIMIT p_limit; or, in the body: -- allow list-offset: <reason>"},
	{optionalFilter, "one generic plan serves all values, also NULL: it cannot use the index and was up to 200 times slower",
		"write a function for each access path, or EXECUTE text that leaves the condition out, with USING"},
	{indexedColumn, "the index holds the column, not the result of the computation: the whole table is read",
		"compare the bare column, and convert the parameter: u.created_at >= p_day AND u.created_at < p_day + 1; or create an index on the expression"},
	{whenOthers, "a handler of OTHERS, of deadlocks, serialization failures or cancellations hides what the service must see to retry or report it",
		"name another condition: EXCEPTION WHEN unique_violation THEN; better, avoid the error with ON CONFLICT"},
	{selectStar, "a column that is added later changes the result, and the function fails while the migration is rolled out",
		"name the columns, also those of INSERT; alias.* is fine for a contract and for a row variable of the same table"},
	{nullCompare, "a comparison with NULL is NULL, so the condition is never true", "IS NULL, IS NOT NULL or IS DISTINCT FROM"},
	{notInNulls, "one NULL in the list makes NOT IN return no row at all", "NOT EXISTS (SELECT FROM ... WHERE ...)"},
	{updateWhere, "without WHERE, or with a condition that is true for every row, it changes or removes the whole table", "add the WHERE that names the rows"},
	{readClock, "the cache returns the answer of another moment or session, and two replicas return different answers",
		"take the moment as a parameter, or let the service compute what depends on it"},
	{sessionState, "connections are pooled: what a call leaves in the session changes the calls of others, and DDL, NOTIFY and commits break the transaction",
		"pass values as parameters; use pg_advisory_xact_lock, arrays or WITH instead of temporary tables, and the cache outbox instead of NOTIFY; in a migration leave the setting out, or above it: " +
			"-- allow session-state: <reason>"},
	{errorCode, "an error that internal/postgres does not map reaches the client as INTERNAL_ERROR, status 500",
		"raise one of docs/errors.md: USING ERRCODE = 'UA001' (not found), 'UA002' (invalid), 'UA003' (other version) with their DETAIL, or " +
			"'unique_violation' and 'check_violation' with a CONSTRAINT that internal/postgres/errors.go lists; add a new one there first; for an error that no request can cause, " +
			"-- allow error-code: <reason>"},
	{errorMessage, "PostgreSQL writes the message to its log, where no value of a request belongs, and errors with one cause must have one text",
		"MESSAGE and HINT are constant texts: MESSAGE = 'pet not found'; values go into DETAIL as JSON"},
	{raiseLog, "it fills PostgreSQL's log, or the connection, at every call, and no one reads it", "remove it; while testing, run the function in psql"},
	{parallelSafe, "PostgreSQL may run it in a parallel worker, where a write fails", "declare it PARALLEL UNSAFE, which is the default"},
	{immutableReads, "PostgreSQL computes an IMMUTABLE function once, when it plans or in an index, and keeps using the old result",
		"declare it STABLE"},
}

// objectRules look at what functions are for (unused.go, outside.go).
var objectRules = []Rule{
	{helperUsed, "what nothing calls is not tested and is in the way of the next change", "drop it, or grant it and write its query"},
	{functionQuery, "a granted function is part of the contract: without a query nothing calls it, and it can never be changed",
		"write its query in db/queries, or revoke it from accounts_read and accounts_write"},
	{outsideSchema, "the rules, the tests of the roles and the Down of a migration look at our schemas: what lies outside is checked by none of them, and PUBLIC " +
		"may execute a function there",
		"create it in schema accounts; roles, settings, extensions and grants on other objects belong to db/bootstrap.sql"},
}

// schemaRuleList looks at the statements of migrations (schema.go).
var schemaRuleList = []Rule{
	{migrationSyntax, "PostgreSQL cannot parse it", "correct it at this line"},
	{migrationBackfill, "the locks of the DDL are held while the rows are changed, and requests of the service wait until then",
		"change the schema in one migration, and the rows in the next, in batches; or above the statement: -- allow migration-backfill: <reason>"},
	{migrationDo, "the rules and squawk do not see what a DO block or a temporary function does, and it may do something else in another database",
		"write the statements themselves; or above it: -- allow migration-do: <reason>"},
	{migrationCopy, "it reads a whole table that is in use, in one transaction, and writes as much WAL at once",
		"create the table empty, and copy in batches from the service or a script; or above it: -- allow migration-copy: <reason>"},
	{migrationRepeatable, "when the second statement fails, the first stays and the migration fails at the first the next time",
		"one statement in each migration without a transaction; or IF EXISTS, CREATE OR REPLACE, and DROP INDEX CONCURRENTLY IF EXISTS before CREATE INDEX"},
	{qualifiedNames, "the schema would depend on the search_path of the login that migrates", "write accounts.<name>"},
	{typeSpelling, "sqlc.yaml maps timestamptz to time.Time; the long name becomes pgtype.Timestamptz, and the service does not compile",
		"write timestamptz"},
	{migrationCascade, "CASCADE drops or revokes what the migration does not name, and what Down does not bring back",
		"name each object, dependents first"},
	{uniqueIndexData, "it fails on the first duplicate, after minutes, or in one database only",
		"remove duplicates and stop new ones in an earlier release; then above the statement: -- allow unique-index-data: <how that was done>"},
	{dictionarySeed, "the cache holds dictionaries for 3 hours and users for 10 minutes, and serves the old rows",
		"after it: SELECT accounts.record_change_v1(ARRAY['d:contact_types'], '{}'), with the keys of what changed; or call the write function instead"},
	{downLosesData, "a release that is taken back must keep the rows that were written before and since",
		"drop a column or table a release after its last use, when Down is no longer wanted, and above it: -- allow down-loses-data: <reason>"},
	{storageOptions, "fillfactor, TOAST and autovacuum of a table in use are a matter of operation: some rewrite it, and UNLOGGED loses it in a crash",
		"set them where the table is created; or above it: -- allow storage-options: <what was measured>"},
}

// squawkRules are our rules for what squawk finds.
var squawkRules = []Rule{
	{"index-concurrently", "building or dropping an index keeps writers out until it is done",
		"CREATE INDEX CONCURRENTLY (DROP, REINDEX, DETACH likewise) in a separate migration with -- +goose NO TRANSACTION"},
	{"index-transaction", "CONCURRENTLY is refused inside a transaction", "move it to a separate migration with -- +goose NO TRANSACTION"},
	{"constraint-not-valid", "the table is locked while every row is checked", "ADD CONSTRAINT ... NOT VALID, and in the next migration VALIDATE CONSTRAINT"},
	{"constraint-using-index", "the table is locked while the index of the constraint is built",
		"CREATE UNIQUE INDEX CONCURRENTLY in a NO TRANSACTION migration, then ADD CONSTRAINT ... UNIQUE USING INDEX"},
	{"set-not-null", "the table is locked while every row is checked",
		"ADD CONSTRAINT ... CHECK (<column> IS NOT NULL) NOT VALID, VALIDATE CONSTRAINT, then SET NOT NULL, which then reads nothing"},
	{"required-column", "it fails on a table that has rows, and the running release does not set the column", "add it with a constant DEFAULT, or without NOT NULL"},
	{"rename", "the release that runs now uses the old name", "add the new one beside it, and drop the old one a release later"},
	{"drop-not-null", "the release that runs now does not expect NULL in this column", "release a service that accepts NULL first; then -- squawk-ignore ban-drop-not-null"},
	{"transaction", "goose begins and ends the transaction of each migration itself", "remove BEGIN, COMMIT and ROLLBACK"},
	{"identifier-length", "PostgreSQL cuts names after 63 bytes, and two names may become one", "choose a shorter name"},
}

// squawkNames maps squawk's rules to ours.
var squawkNames = map[string]string{
	"require-concurrent-index-creation": "index-concurrently", "require-concurrent-index-deletion": "index-concurrently",
	"require-concurrent-reindex": "index-concurrently", "require-concurrent-partition-detach": "index-concurrently",
	"ban-concurrent-index-creation-in-transaction": "index-transaction",
	"constraint-missing-not-valid":                 "constraint-not-valid", "adding-foreign-key-constraint": "constraint-not-valid",
	"disallowed-unique-constraint": "constraint-using-index",
	"adding-not-nullable-field":    "set-not-null", "adding-required-field": "required-column",
	"renaming-column": "rename", "renaming-table": "rename",
	"changing-column-type": migrationRewrite, "adding-field-with-default": migrationRewrite, "adding-serial-primary-key-field": migrationRewrite,
	"ban-drop-column": downLosesData, "ban-drop-table": downLosesData, "ban-drop-database": downLosesData,
	"ban-drop-not-null":   "drop-not-null",
	"transaction-nesting": "transaction", "ban-uncommitted-transaction": "transaction",
	"ban-char-field": "column-type", "prefer-timestamp-tz": "column-type", "prefer-text-field": "column-type", "prefer-identity": "column-type",
	"prefer-bigint-over-smallint": "column-type",
	"ban-truncate-cascade":        migrationCascade, "require-table-schema": qualifiedNames, "identifier-too-long": "identifier-length",
	"require-enum-value-ordering": "object-kind", "ban-create-domain-with-constraint": "object-kind", "ban-alter-domain-with-add-constraint": "object-kind",
	"syntax-error": migrationSyntax,
}
