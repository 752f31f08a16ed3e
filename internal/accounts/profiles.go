package accounts

import (
	"bytes"
	"encoding/json"

	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// The limits of users_profile_size and users_profile_depth: 16 KiB as PostgreSQL writes the profile,
	// and 32 levels.
	maxProfileBytes = 16 << 10
	maxProfileDepth = 32
	// A profile or merge patch is refused unread if it is larger than this. A patch that replaces a full
	// profile sets up to 16 KiB and removes up to 18.4 KiB of members ("a":null for "a": 1); the rest is
	// room for white space and \u escapes.
	maxProfileInput = 64 << 10
)

// The states of an open container in measureJSON. Others are the bytes of a key whose value follows.
const (
	inList    = -1
	awaitsKey = -2
)

// checkProfile returns what is wrong with the size of a profile that is to be stored, or nil. It refuses
// what certainly does not fit, before it costs the database anything; the constraints of the table
// decide about the rest. JSON that is malformed is left to the database too.
func checkProfile(profile json.RawMessage) *errcode.Field { return checkProfileSize(profile, false) }

// checkProfilePatch is checkProfile for a merge patch. Every member of it that is not null is in the
// result, so a patch that is too large or too deep by them cannot fit whatever the user's profile is.
func checkProfilePatch(patch json.RawMessage) *errcode.Field { return checkProfileSize(patch, true) }

func checkProfileSize(text json.RawMessage, patch bool) *errcode.Field {
	if len(text) > maxProfileInput {
		return profileTooLarge()
	}
	size, depth := measureJSON(text, patch)
	switch {
	case depth > maxProfileDepth:
		return &errcode.Field{Field: "profile", Code: "too_deep", Message: "must not nest deeper than 32 levels"}
	case size > maxProfileBytes:
		return profileTooLarge()
	}
	return nil
}

func profileTooLarge() *errcode.Field {
	return &errcode.Field{Field: "profile", Code: "too_large", Message: "must not exceed 16 KiB"}
}

// measureJSON returns a lower bound of the bytes that PostgreSQL needs to write a JSON text, and how
// deep its containers nest. Members that are null count as nothing if the text is a merge patch. It stops
// at the first syntax error and beyond maxProfileDepth. A key that an object has twice counts twice; the
// API refuses such a body.
func measureJSON(text json.RawMessage, patch bool) (size, depth int) {
	const quotes, colon, brackets = 2, 2, 2 // "key": and {} or []
	var keys []int                          // of each open container: inList, awaitsKey, or the bytes of the key whose value follows
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	for depth <= maxProfileDepth {
		token, err := decoder.Token()
		if err != nil {
			break // the end, or malformed
		}
		innermost := len(keys) - 1
		if name, ok := token.(string); ok && innermost >= 0 && keys[innermost] == awaitsKey {
			keys[innermost] = quotes + len(name) + colon
			continue
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			keys = keys[:innermost]
			continue
		}
		length := 1 // of a number, at least
		switch value := token.(type) {
		case string:
			length = quotes + len(value)
		case bool, nil:
			length = len("null")
		case json.Delim:
			length = brackets
		}
		if innermost >= 0 && keys[innermost] >= 0 {
			if token == nil && patch {
				length = 0
			} else {
				length += keys[innermost]
			}
			keys[innermost] = awaitsKey
		}
		size += length
		switch token {
		case json.Delim('{'):
			keys = append(keys, awaitsKey)
		case json.Delim('['):
			keys = append(keys, inList)
		}
		depth = max(depth, len(keys))
	}
	return size, depth
}
