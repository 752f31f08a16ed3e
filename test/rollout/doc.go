// Package rollout tests a release beside the one before it: that binary on the new schema, this one on
// the schema before its migrations, and both at once. The release before is the newest tag, or what the
// branch left main with; it is built from an archive of that commit, with its own migrations.
package rollout
