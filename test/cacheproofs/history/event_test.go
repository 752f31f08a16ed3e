package history

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// The error codes that the model knows.
const (
	contactTypeConflict = "CONTACT_TYPE_CONFLICT"
	identifierTaken     = "IDENTIFIER_TAKEN"
	outcomeUnknown      = "OUTCOME_UNKNOWN"
	preconditionFailed  = "PRECONDITION_FAILED"
)

// kind is what a request asks.
type kind string

const (
	getByID    kind = "get"
	getByPhone kind = "get by phone"
	getByEmail kind = "get by email"
	getByLogin kind = "get by login"
	getGroups  kind = "get groups"
	patch      kind = "patch"
	addLogin   kind = "add login"
	addPhone   kind = "add phone"
	dropPhone  kind = "drop phone"
	setMember  kind = "set member"
	rename     kind = "rename"
	promotion  kind = "promotion"
)

// statuses are what each kind may be answered, besides 503.
var statuses = map[kind][]int{
	getByID:    {200, 304},
	getByPhone: {200, 404},
	getByEmail: {200},
	getByLogin: {200, 404},
	getGroups:  {200},
	patch:      {200, 412},
	addLogin:   {201},
	addPhone:   {201, 409},
	dropPhone:  {204, 404},
	setMember:  {200},
	rename:     {200},
}

// event is one request and its answer. Times are since the start of the round.
type event struct {
	Client, Server int
	Kind           kind
	User           int    // the user asked about, or of which something is asked
	Text           string `json:",omitempty"` // identifier, value or name in the request
	N              int64  `json:",omitempty"` // PATCH: the new number
	Version        int64  `json:",omitempty"` // PATCH: If-Match
	Member         bool   `json:",omitempty"`
	Contact        string `json:",omitempty"` // the contact that was made, or is to be dropped

	Call, Return time.Duration
	RequestID    string
	Status       int       // 0: the connection was lost
	Problem      string    `json:",omitempty"` // error_code
	Cache        string    `json:",omitempty"` // X-Cache
	Source       string    `json:",omitempty"` // X-Data-Source
	Doc          *document `json:",omitempty"`
	GroupName    string    `json:",omitempty"` // GET groups
	Tagged       bool      `json:",omitempty"` // 412: with the current ETag
	Fault        string    `json:",omitempty"` // what is wrong with the answer by itself

	Freshness freshness     // of a read; what the faults around it allow
	Hidden    time.Duration // of a write: until when cached reads may miss it
}

// document is a UserDetail.
type document struct {
	ID       string `json:"id"`
	IsActive bool   `json:"is_active"`
	Version  int64  `json:"version"`
	Profile  struct {
		N int64 `json:"n"`
	} `json:"profile"`
	Groups    []named   `json:"groups"`
	Contacts  []contact `json:"contacts"`
	MatchedBy string    `json:"matched_by,omitempty"`
}

type named struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type contact struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Value string `json:"value"`
}

// state is what the model knows of a document. No user of a round has a second group.
func (d *document) state() user {
	u := user{Version: d.Version, N: d.Profile.N, Member: len(d.Groups) > 0}
	for _, c := range d.Contacts {
		switch c.Type {
		case "phone":
			u.Phone, u.PhoneID = c.Value, c.ID
		case "second_login":
			u.Login = c.Value
		}
	}
	return u
}

func (d *document) lists(value string) bool {
	return slices.ContainsFunc(d.Contacts, func(c contact) bool { return c.Value == value })
}

func (e *event) isRead() bool {
	switch e.Kind {
	case getByID, getByPhone, getByEmail, getByLogin, getGroups:
		return true
	}
	return false
}

// unknown reports whether nobody can tell if the write was made.
func (e *event) unknown() bool {
	return !e.isRead() && (e.Status == 0 || e.Problem == outcomeUnknown)
}

// refused reports whether the answer says nothing about any state: a read that failed, or a write that
// certainly was not made.
func (e *event) refused() bool {
	return !e.unknown() && (e.Status == 0 || e.Status == http.StatusServiceUnavailable)
}

// check returns what is wrong with the answer by itself; excused says that the database, or the
// process, was away.
func (e *event) check(w *world, excused bool) string {
	switch {
	case e.Fault != "":
		return e.Fault
	case e.Status == 0 || e.Status == http.StatusServiceUnavailable:
		if !excused {
			return "no answer, although neither the database nor the process was away"
		}
		return ""
	case !slices.Contains(statuses[e.Kind], e.Status):
		return "a status that is not in the contract"
	case e.Kind == dropPhone && e.Status == http.StatusNotFound && !w.promoted():
		return "the contact has vanished"
	case e.Status == http.StatusConflict && e.Problem != contactTypeConflict && e.Problem != identifierTaken,
		e.Status == http.StatusPreconditionFailed && (e.Problem != preconditionFailed || e.Version == 0):
		return "an error code that does not fit"
	case e.Status == http.StatusPreconditionFailed && !e.Tagged && !excused:
		return "412 without the current ETag"
	}
	if e.isRead() && e.Status < 400 {
		fits := map[string][]string{
			"hit": {"cache"}, "miss": {"replica", "primary"}, "bypass": {"replica", "primary"},
		}
		if !slices.Contains(fits[e.Cache], e.Source) {
			return "X-Cache and X-Data-Source do not fit"
		}
	}
	if e.Doc != nil {
		return e.checkDocument(w)
	}
	return ""
}

func (e *event) checkDocument(w *world) string {
	owner := w.userOf(e.Doc.ID)
	matchedBy := map[kind]string{getByPhone: "phone", getByEmail: "email", getByLogin: "second_login"}[e.Kind]
	switch {
	case owner < 0 || owner/2 != e.User/2 || owner != e.User && e.Kind != getByPhone:
		return "the document of another user"
	case !e.Doc.IsActive, !e.Doc.lists(email(owner)):
		return "a document without what never changes"
	case e.Doc.MatchedBy != matchedBy, matchedBy != "" && !e.Doc.lists(e.Text):
		return "the document does not have the identifier"
	case len(e.Doc.Groups) > 1, len(e.Doc.Groups) == 1 && e.Doc.Groups[0].ID != w.groups[e.User/2]:
		return "a group of others"
	}
	return ""
}

func (e *event) String() string {
	text := fmt.Sprintf("%s user %d at server %d", e.Kind, e.User, e.Server)
	for _, word := range []string{e.Text, e.Contact} {
		if word != "" {
			text += " " + word
		}
	}
	if e.Kind == patch {
		text += fmt.Sprintf(" n=%d", e.N)
	}
	if e.Version != 0 {
		text += fmt.Sprintf(" if version %d", e.Version)
	}
	if e.Kind == setMember {
		text += fmt.Sprintf(" %t", e.Member)
	}
	text += fmt.Sprintf(": %d", e.Status)
	for _, word := range []string{e.Problem, e.Cache, e.Source} {
		if word != "" {
			text += " " + word
		}
	}
	return text
}
