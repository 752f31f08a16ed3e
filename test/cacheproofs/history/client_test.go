package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	clients = 8
	// Porcupine's cost grows with the length of a history; so it is bounded. Part of the room is kept
	// for looks at a user after its busiest time.
	maxOperations  = 300
	busyOperations = 200
	// phonesOfPair is more than two users can have, so that one can be free.
	phonesOfPair = 3
	// Clients keep to two pairs at a time, which makes them meet, and look elsewhere this often.
	elsewhere = 0.25
	// The load comes in beats, with the same pauses for all: the few requests that are allowed shall
	// meet each other, and yet meet every fault of a round.
	beats  = 100
	active = 0.5 // of each beat
	// maxThink is the longest pause of a client between two requests of a beat.
	maxThink = 4 * time.Millisecond
)

// choices are what clients ask, by weight.
var choices = []struct {
	kind   kind
	weight int
}{
	{getByID, 30}, {getByPhone, 16}, {getByEmail, 5}, {getByLogin, 8}, {getGroups, 4},
	{patch, 16}, {addLogin, 5}, {dropPhone, 8}, {addPhone, 4}, {setMember, 4}, {rename, 4},
}

// client asks one thing after the other.
type client struct {
	*world
	number  int
	random  *rand.Rand
	http    *http.Client
	token   string
	events  []*event
	numbers int64

	seen [users]*document     // the last that this client saw of each user
	etag [users]string        // its entity tag
	docs map[string]*document // by entity tag
	then func()               // what belongs to the last request
}

func newClient(w *world, number int, seed uint64) *client {
	signed, err := token()
	if err != nil {
		panic(err) // made of constants
	}
	return &client{
		world: w, number: number, token: signed, docs: map[string]*document{},
		random: rand.New(rand.NewPCG(seed, uint64(number))),
		http:   &http.Client{Timeout: requestLimit, Transport: &http.Transport{}},
	}
}

// run asks until the end of the round, or until every user has been asked enough.
func (c *client) run(end time.Duration, room *room) {
	defer c.http.CloseIdleConnections()
	begin := c.now()
	beat := (end - begin) / beats
	for {
		now := c.now()
		if now >= end {
			return
		}
		if in := (now - begin) % beat; in > time.Duration(active*float64(beat)) {
			time.Sleep(beat - in)
			continue
		}
		hot := int(float64(pairs-1) * float64(now-begin) / float64(end-begin))
		pair, limit := hot+c.random.IntN(2), busyOperations
		if c.random.Float64() < elsewhere {
			pair, limit = c.random.IntN(pairs), maxOperations
		}
		if room.take(pair, limit) {
			c.ask(2*pair + c.random.IntN(2))
			if c.then != nil && room.take(pair, maxOperations) {
				c.then()
			}
			c.then = nil
		}
		time.Sleep(rand.N(maxThink)) // its own pace, not a wait for anything
	}
}

// room counts what was asked of each pair.
type room struct {
	mu    sync.Mutex
	taken [pairs]int
}

// take reserves one request to a pair, which concerns both users at most, unless limit is reached.
func (r *room) take(pair, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken[pair] >= limit {
		return false
	}
	r.taken[pair]++
	return true
}

func (c *client) ask(u int) {
	e := &event{Client: c.number, Server: c.random.IntN(servers), Kind: c.choose(), User: u}
	switch path := "/accounts/users/" + c.ids[u]; e.Kind {
	case getByID:
		var tag []string
		if c.etag[u] != "" && c.random.IntN(2) == 0 {
			tag = []string{"If-None-Match", c.etag[u]}
		}
		c.sendRead(e, path, tag...)
	case getByPhone:
		c.byIdentifier(e, phone(u/2, c.random.IntN(phonesOfPair)))
	case getByEmail:
		c.byIdentifier(e, email(u))
	case getByLogin:
		c.byIdentifier(e, login(u, c.random.IntN(2)))
	case getGroups:
		c.sendRead(e, "/accounts/user-groups")
	case patch:
		e.N = c.unique()
		var tag []string
		if d := c.seen[u]; d != nil && c.random.IntN(3) == 0 {
			e.Version = d.Version
			tag = []string{"If-Match", c.etag[u]}
		}
		c.sendWrite(e, http.MethodPatch, path, map[string]any{"profile": map[string]int64{"n": e.N}}, tag...)
	case addLogin:
		e.Text = login(u, c.random.IntN(2))
		c.addContact(e, "second_login")
	case addPhone:
		e.Text = phone(u/2, c.random.IntN(phonesOfPair))
		c.addContact(e, "phone")
	case dropPhone:
		c.movePhone(e)
	case setMember:
		e.Member = c.random.IntN(2) == 0
		c.sendWrite(e, http.MethodPost, "/accounts/user-group-memberships",
			map[string]any{"user_id": c.ids[u], "group_id": c.groups[u/2], "is_active": e.Member})
	case rename:
		e.Text = fmt.Sprintf("group %d %d", u/2, c.unique())
		c.sendWrite(e, http.MethodPatch, "/accounts/user-groups/"+c.groups[u/2], map[string]any{"name": e.Text})
	}
}

// movePhone drops the phone that the client saw at the user and gives it to the other of the pair.
func (c *client) movePhone(e *event) {
	d := c.seen[e.User]
	if d == nil || d.state().Phone == "" {
		e.Kind = getByID
		c.sendRead(e, "/accounts/users/"+c.ids[e.User])
		return
	}
	number := d.state().Phone
	e.Contact = d.state().PhoneID
	c.sendWrite(e, http.MethodDelete, "/accounts/contacts/"+e.Contact, nil)
	if e.Status == http.StatusNoContent {
		c.then = func() {
			add := &event{Client: c.number, Server: c.random.IntN(servers), Kind: addPhone, User: e.User ^ 1, Text: number}
			c.addContact(add, "phone")
		}
	}
}

func (c *client) addContact(e *event, typ string) {
	text := c.sendWrite(e, http.MethodPost, "/accounts/contacts",
		map[string]string{"user_id": c.ids[e.User], "type": typ, "value": e.Text})
	e.Contact = unseen
	if e.Status == http.StatusCreated {
		var made contact
		if json.Unmarshal(text, &made) != nil || made.Value != e.Text || made.Type != typ {
			e.Fault = "another contact than was sent"
		}
		e.Contact = made.ID
	}
}

func (c *client) byIdentifier(e *event, identifier string) {
	e.Text = identifier
	c.sendRead(e, "/accounts/users/by-identifier?identifier="+url.QueryEscape(identifier))
}

func (c *client) choose() kind {
	total := 0
	for _, choice := range choices {
		total += choice.weight
	}
	n := c.random.IntN(total)
	for _, choice := range choices {
		if n -= choice.weight; n < 0 {
			return choice.kind
		}
	}
	panic("unreachable")
}

// unique returns a number that no other call of any client returns.
func (c *client) unique() int64 {
	c.numbers++
	return c.numbers*clients + int64(c.number)
}

func (c *client) sendRead(e *event, path string, headers ...string) {
	c.record(e, c.send(e, http.MethodGet, path, nil, headers...))
}

func (c *client) sendWrite(e *event, method, path string, body any, headers ...string) []byte {
	text := c.send(e, method, path, body, headers...)
	c.record(e, text)
	return text
}

// record keeps an event that reached a server, with what its answer says.
func (c *client) record(e *event, text []byte) {
	if e.Status < 0 {
		return
	}
	c.events = append(c.events, e)
	if e.Fault != "" || e.Status == 0 || e.Status == http.StatusNotModified {
		return
	}
	switch {
	case e.Status >= 400:
		var problem struct {
			Code string `json:"error_code"`
		}
		if json.Unmarshal(text, &problem) != nil || problem.Code == "" {
			e.Fault = "an error without a problem body"
		}
		e.Problem = problem.Code
	case e.Kind == getGroups:
		var list struct{ Items []named }
		err := json.Unmarshal(text, &list)
		i := slices.IndexFunc(list.Items, func(g named) bool { return g.ID == c.groups[e.User/2] })
		if err != nil || i < 0 {
			e.Fault = "the group is not in the list"
			return
		}
		e.GroupName = list.Items[i].Name
	case e.isRead() || e.Kind == patch:
		e.Doc = new(document)
		if err := json.Unmarshal(text, e.Doc); err != nil {
			e.Fault = "not a document"
		}
	}
}

// send sends one request to the event's server and notes what is known without its body, which it
// returns. Status -1 says that no server was reached.
func (c *client) send(e *event, method, path string, body any, headers ...string) []byte {
	var content []byte
	if body != nil {
		content, _ = json.Marshal(body) // of maps
	}
	request, err := http.NewRequest(method, *c.servers[e.Server].url.Load()+path, bytes.NewReader(content))
	if err != nil {
		panic(err) // made here
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	e.RequestID = fmt.Sprintf("c%d-%d", c.number, len(c.events))
	request.Header.Set("X-Request-Id", e.RequestID)

	e.Call = c.now()
	response, err := c.http.Do(request)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(response.Body)
		err = errors.Join(err, response.Body.Close())
	}
	e.Return = c.now()
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			e.Status = -1
		} else if e.Return-e.Call >= requestLimit {
			e.Fault = "no answer at all"
		}
		return nil
	}
	e.Status = response.StatusCode
	c.noteHeaders(e, response.Header, text)
	return text
}

func (c *client) noteHeaders(e *event, h http.Header, text []byte) {
	e.Cache, e.Source = h.Get("X-Cache"), h.Get("X-Data-Source")
	if h.Get("X-Request-Id") != e.RequestID {
		e.Fault = "another X-Request-ID than was sent"
	}
	if e.Status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		e.Fault = "503 without Retry-After"
	}
	tag := h.Get("Etag")
	switch {
	case e.Kind != getByID && e.Kind != patch:
	case e.Status == http.StatusOK:
		d := new(document)
		if tag == "" || json.Unmarshal(text, d) != nil {
			e.Fault = "a document without its ETag"
			return
		}
		c.docs[tag], c.seen[e.User], c.etag[e.User] = d, d, tag
	case e.Status == http.StatusNotModified:
		if e.Doc = c.docs[tag]; e.Doc == nil || tag != c.etag[e.User] {
			e.Fault = "304 for another ETag"
		}
	case e.Status == http.StatusPreconditionFailed:
		e.Tagged = tag != ""
	}
}
