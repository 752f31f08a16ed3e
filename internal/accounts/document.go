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
	return active(meta) && (identifier == "" || slices.Contains(strings.Split(meta, " ")[1:], identifier))
}

// active reports whether the document's user is active.
func active(meta string) bool {
	status, _, _ := strings.Cut(meta, " ")
	return status == metaActive
}

// answer turns a result into an answer whose tag ends with suffix.
func answer(r cache.Result, suffix string) Answer {
	return Answer{
		Body: r.Body, Tag: r.ETag + suffix, NotModified: r.NotModified, Active: active(r.Meta),
		Origin: Origin{Cache: r.Status, Server: r.Server},
	}
}

// notModified compares the tags with a document that the cache did not compare.
func (a Answer) notModified(tags []string, etag string) Answer {
	if slices.Contains(tags, etag) || slices.Contains(tags, anyTag) {
		a.Body, a.NotModified = nil, true
	}
	return a
}

// anyTag among the tags of a call stands for every tag.
const anyTag = "*"

// tagsWithoutSuffix returns the tags that end with suffix, without it: the tags of the documents from
// which the answers with those tags were made.
func tagsWithoutSuffix(tags []string, suffix string) []string {
	var without []string
	for _, tag := range tags {
		if documentTag, ok := strings.CutSuffix(tag, suffix); ok || tag == anyTag {
			without = append(without, documentTag)
		}
	}
	return without
}

func contentHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
