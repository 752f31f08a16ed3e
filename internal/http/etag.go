package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/payment-services/accounts/internal/errcode"
)

// An entity tag of this service is "<version>-<hash of the body>", always strong. If-None-Match
// compares the whole tag, If-Match the version alone. So a tag that any answer for a resource carried
// may be sent in If-Match, whichever fields that answer had.

const (
	// maxEntityTags bounds the list of one header. A client sends the tags it has of one resource: a few.
	maxEntityTags = 64
	// maxEntityTagBytes is more than any tag of this service has. A longer one matches nothing.
	maxEntityTagBytes = 64
	// anyTag is what the header "*" becomes in a list of tags. The quoted tag "*" does not become a
	// list item: no document has it.
	anyTag = "*"
)

var (
	ifNoneMatchParam = &huma.Param{
		Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "ETags that the client has; 304 if one of them is current.",
	}
	ifMatchParam = &huma.Param{
		Name: "If-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "ETags that the change is based on; 412 unless the resource has the version of one of them.",
	}
)

// entityTag is one tag of a header, without quotes.
type entityTag struct {
	opaque string
	weak   bool
}

// parseEntityTags reads the lines of an If-Match or If-None-Match header (RFC 9110, section 8.8.3):
// "*", or a list of tags, whose empty elements are ignored. A comma or "*" inside quotes belongs to
// its tag. ok is false if the header is something else, or has no tag or too many.
func parseEntityTags(lines []string) (tags []entityTag, isAny, ok bool) {
	if len(lines) == 1 && strings.Trim(lines[0], " \t") == "*" {
		return nil, true, true
	}
	for _, line := range lines {
		for rest := line; ; {
			rest = strings.TrimLeft(rest, " \t")
			if rest == "" {
				break
			}
			if rest[0] == ',' {
				rest = rest[1:]
				continue
			}
			var tag entityTag
			rest, tag.weak = strings.CutPrefix(rest, "W/")
			if rest == "" || rest[0] != '"' {
				return nil, false, false
			}
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 || strings.ContainsFunc(rest[1:1+end], isNoTagCharacter) || len(tags) == maxEntityTags {
				return nil, false, false
			}
			tag.opaque, rest = rest[1:1+end], strings.TrimLeft(rest[end+2:], " \t")
			if rest != "" && rest[0] != ',' {
				return nil, false, false
			}
			tags = append(tags, tag)
		}
	}
	return tags, false, len(tags) > 0
}

// isNoTagCharacter reports whether c may not be in a tag: spaces and control characters.
func isNoTagCharacter(c rune) bool { return c <= ' ' || c == 0x7f }

// ifNoneMatch returns the tags that the client has, or anyTag. The comparison is the weak one (RFC
// 9110, section 13.1.2), so W/ does not matter. A header that cannot be read matches nothing: the
// answer is then the whole document, which is always right.
func (in *input) ifNoneMatch() []string {
	lines := in.r.Header["If-None-Match"]
	if lines == nil {
		return nil
	}
	tags, isAny, ok := parseEntityTags(lines)
	if isAny {
		return []string{anyTag}
	}
	if !ok {
		return nil
	}
	var opaque []string
	for _, tag := range tags {
		if tag.opaque != anyTag && len(tag.opaque) <= maxEntityTagBytes {
			opaque = append(opaque, tag.opaque)
		}
	}
	return opaque
}

// ifMatch returns the versions that If-Match accepts: nil if every version will do, and an empty list
// if none will. The comparison is the strong one, so a weak tag matches nothing.
func (in *input) ifMatch() []int64 {
	lines := in.r.Header["If-Match"]
	if lines == nil {
		return nil
	}
	tags, isAny, ok := parseEntityTags(lines)
	if !ok {
		in.wrong("If-Match", "invalid_etag", `must be * or a list of at most `+strconv.Itoa(maxEntityTags)+
			` ETags in quotes: "<version>-<hash>"`)
	}
	if isAny || !ok {
		return nil
	}
	versions := []int64{}
	for _, tag := range tags {
		if version, ok := tag.version(); ok && !tag.weak {
			versions = append(versions, version)
		}
	}
	return versions
}

// version returns the version that the tag names. Tags of other forms name none.
func (t entityTag) version() (int64, bool) {
	text, hash, _ := strings.Cut(t.opaque, "-")
	version, err := strconv.ParseInt(text, 10, 64)
	return version, err == nil && hash != "" && strconv.FormatInt(version, 10) == text
}

// checkPreconditions refuses the preconditions that the route would ignore: the client would take the
// change for conditional. If-Modified-Since applies to reads only, and no answer has a Last-Modified,
// so it is ignored, as RFC 9110, section 13.1.3, asks.
func (in *input) checkPreconditions() {
	h := in.r.Header
	reads := in.r.Method == http.MethodGet || in.r.Method == http.MethodHead
	if h["If-Match"] != nil && !slices.Contains(in.route.params, ifMatchParam) {
		in.wrong("If-Match", "unsupported", "this route does not evaluate it; PATCH and DELETE of one resource do")
	}
	if h["If-None-Match"] != nil && !reads {
		in.wrong("If-None-Match", "unsupported", "only GET and HEAD evaluate it; use If-Match for changes")
	}
	if h["If-Unmodified-Since"] != nil && h["If-Match"] == nil && !reads {
		in.wrong("If-Unmodified-Since", "unsupported", "resources have no modification date; use If-Match with an ETag")
	}
}

// versionTag returns the entity tag of a body that shows this version of a resource.
func versionTag(version int64, body []byte) string {
	sum := sha256.Sum256(body)
	return strconv.FormatInt(version, 10) + "-" + hex.EncodeToString(sum[:8])
}

// setTag sets the ETag header to a tag without quotes.
func (w *response) setTag(tag string) { w.Header().Set("Etag", `"`+tag+`"`) }

// resource sends v, which shows this version of a resource, with its ETag, or 304 if one of the tags
// is current. tags is nil for writes.
func (w *response) resource(status int, version int64, v any, tags []string) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	tag := versionTag(version, body)
	w.setTag(tag)
	if slices.Contains(tags, tag) || slices.Contains(tags, anyTag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header()["Content-Type"] = applicationJSON
	w.send(status, body)
	return nil
}

// refused returns err, the error of a write. If it is PRECONDITION_FAILED, the answer gets the ETag of
// v, which shows the current version of the resource; a version that is not positive is unknown.
func (w *response) refused(err error, version int64, v any) error {
	if errcode.Of(err) != errcode.PreconditionFailed || version <= 0 {
		return err
	}
	body, encodeErr := encode(v)
	if encodeErr != nil {
		return encodeErr
	}
	w.setTag(versionTag(version, body))
	return err
}
