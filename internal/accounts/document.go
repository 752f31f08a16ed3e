package accounts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/payment-services/accounts/internal/cache"
	"github.com/payment-services/accounts/internal/dbgen/read"
)

// The first word of a user document's Meta; the active identifiers follow.
const (
	metaActive   = "active"
	metaInactive = "inactive"
)

// A client sends the tags it has of one resource: a few.
const maxEntityTags = 16

// renderUser makes the document of a user: compact JSON, its entity tag, and the identifiers under
// which it is found.
func renderUser(u read.UserDetailV1) (cache.Document, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"id":"%s","created_at":"%s","updated_at":"%s","is_active":%t,"profile":`,
		u.ID, formatTime(u.CreatedAt), formatTime(u.UpdatedAt), u.IsActive)
	err := json.Compact(&b, u.Profile)
	fmt.Fprintf(&b, `,"version":%d,"groups":`, u.Version)
	if err == nil {
		err = json.Compact(&b, u.Groups)
	}
	b.WriteString(`,"contacts":`)
	if err == nil {
		err = json.Compact(&b, u.Contacts)
	}
	if err != nil {
		return cache.Document{}, fmt.Errorf("render a user: %w", err)
	}
	b.WriteByte('}')

	meta := metaInactive
	if u.IsActive {
		meta = strings.Join(append([]string{metaActive}, u.Identifiers...), " ")
	}
	return cache.Document{
		Body: b.Bytes(),
		ETag: strconv.FormatInt(u.Version, 10) + "-" + contentHash(b.Bytes()),
		Meta: meta,
		Deps: u.Dependencies,
	}, nil
}

// found reports whether the document's user is active and, unless it is asked for by uuid, has this
// identifier ("<kind>:<canonical>").
func found(meta, identifier string) bool {
	words := strings.Split(meta, " ")
	return words[0] == metaActive && (identifier == "" || slices.Contains(words[1:], identifier))
}

// answer turns a result into an answer whose tag ends with suffix.
func answer(r cache.Result, suffix string) Answer {
	return Answer{
		Body: r.Body, ETag: `"` + r.ETag + suffix + `"`, NotModified: r.NotModified,
		Origin: Origin{Cache: r.Status, Server: r.Server},
	}
}

// notModified answers for documents that did not pass the cache's own comparison.
func (a Answer) notModified(tags []string, etag string) Answer {
	if slices.Contains(tags, etag) || slices.Contains(tags, "*") {
		a.Body, a.NotModified = nil, true
	}
	return a
}

// entityTags returns the opaque tags of an If-None-Match header that end with suffix, without it.
// The comparison is the weak one (RFC 9110, 13.1.2), so W/ does not matter.
func entityTags(header, suffix string) []string {
	if header == "" {
		return nil
	}
	var tags []string
	for word := range strings.SplitSeq(header, ",") {
		word = strings.TrimPrefix(strings.TrimSpace(word), "W/")
		tag, ok := strings.CutSuffix(strings.Trim(word, `"`), suffix)
		if word == "*" {
			tag, ok = "*", true
		}
		if ok && len(tags) < maxEntityTags {
			tags = append(tags, tag)
		}
	}
	return tags
}

func contentHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
