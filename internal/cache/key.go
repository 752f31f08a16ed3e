package cache

import (
	"strings"

	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/identifier"
)

const (
	prefix   = "accounts:"
	genKey   = prefix + "gen"
	dirtyKey = prefix + "dirty"
)

// Key is a logical key. Write functions return these keys in touched: "u:<user id>", "c:<contact id>",
// "i:<kind>:<canonical>", "d:<dictionary>".
type Key string

// The two dictionaries.
const (
	ContactTypesKey Key = "d:contact_types"
	UserGroupsKey   Key = "d:user_groups"
)

// UserKey is the key of a user's document, and of the user's contacts and memberships.
func UserKey(id uuid.UUID) Key { return Key("u:" + id.String()) }

// ContactKey is the key of one contact.
func ContactKey(id uuid.UUID) Key { return Key("c:" + id.String()) }

// IdentifierKey is the key of the mapping from an identifier to a user id.
func IdentifierKey(id identifier.Identifier) Key {
	return Key("i:" + string(id.Kind) + ":" + id.Canonical)
}

// physical returns the Redis key.
func (k Key) physical() string {
	kind, name, _ := strings.Cut(string(k), ":")
	switch kind {
	case "u":
		return prefix + "user:" + name
	case "c":
		return prefix + "contact:" + name
	case "i":
		return prefix + "user_by_identifier:" + name
	default: // "d"
		return prefix + name
	}
}

// split returns the Redis keys and the counters of dependencies for the logical keys of a write.
func split(touched []string) (keys, deps []string) {
	for _, t := range touched {
		if strings.HasPrefix(t, "g:") || strings.HasPrefix(t, "t:") {
			deps = append(deps, t)
		} else {
			keys = append(keys, Key(t).physical())
		}
	}
	return keys, physicalDeps(deps)
}
