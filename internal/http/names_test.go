package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
)

// spellingsOfVIP are texts that a person reads as the group VIP.
var spellingsOfVIP = []string{
	"VIP", "vip", "Vip", " vip", "vip ", "vip\u00a0", "\u3000vip", "vip\u2003", "vip\u202f", "vip\t", "vip\n", "vip\u200b", "v\u00adip",
	"\u202evip\u202c", "\u200evip", "vip\u2060", "\ufeffvip", "vip\ufe0f", "v\u034fip", "vip\u180e", "vip\u3164", "vip\U000e0041", "vip\u2800",
}

// asJSON returns a text as a JSON string.
func asJSON(t testing.TB, text string) string {
	t.Helper()
	data, err := json.Marshal(text)
	require.NoError(t, err)
	return string(data)
}

func (s *stack) createGroup(name string) (created Group) {
	s.t.Helper()
	s.call(http.MethodPost, "/accounts/user-groups", `{"name":`+asJSON(s.t, name)+`}`).ok(http.StatusCreated, &created)
	return created
}

func TestGroupNames_OneSpellingOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	vip, other := s.createGroup(" VIP\u200b "), s.createGroup("other")
	require.Equal(t, "VIP", vip.Name)
	for i, text := range spellingsOfVIP {
		t.Run(fmt.Sprintf("%+q", text), func(t *testing.T) {
			name := asJSON(t, text)
			p := s.call(http.MethodPost, "/accounts/user-groups", `{"name":`+name+`}`).problem(errcode.NameTaken)
			require.Equal(t, []string{"name taken"}, p.faults())
			s.call(http.MethodPatch, "/accounts/user-groups/"+other.ID.String(), `{"name":`+name+`}`).problem(errcode.NameTaken)

			var user UserDetail
			s.call(http.MethodPost, "/accounts/users", `{"groups":[`+name+`,"other"]}`).ok(http.StatusCreated, &user)
			require.Equal(t, []UserDetailGroup{{vip.ID, "VIP"}, {other.ID, "other"}}, user.Groups)

			var bulk BulkResult
			phone := fmt.Sprintf("+7999001%04d", i)
			s.bulk("", `{"users":[{"phone":"`+phone+`","user_groups":[`+name+`,"vip","OTHER"]}]}`).ok(http.StatusOK, &bulk)
			require.Equal(t, []string{"1 created"}, bulk.outcomes(t))
			require.Len(t, s.user(bulk.Rows[0].UserID.String()).Groups, 2)

			file := "phone,user_groups\n+7999002" + phone[8:] + ",\"" + text + ",\u200b,\u3000,Other\"\n"
			s.upload("", "users.csv", file).ok(http.StatusOK, &bulk)
			require.Equal(t, []string{"2 created"}, bulk.outcomes(t))
			require.Len(t, s.user(bulk.Rows[0].UserID.String()).Groups, 2)

			file = "phone,user_groups\n+7999003" + phone[8:] + ",\"" + text + ",\u200b,\u3000,Other\"\n"
			s.upload("", "users.csv", file, "Prefer", "respond-async").ok(http.StatusAccepted, nil)
			s.runImports()
			s.call(http.MethodGet, "/accounts/users/by-identifier?identifier=%2B7999003"+phone[8:], "").ok(http.StatusOK, &user)
			require.Len(t, user.Groups, 2)
		})
	}
	// A new spelling of its own name renames a group.
	s.call(http.MethodPatch, "/accounts/user-groups/"+vip.ID.String(), `{"name":"Vip"}`).ok(http.StatusOK, &vip)
	require.Equal(t, "Vip", vip.Name)
	var list GroupList
	s.call(http.MethodGet, "/accounts/user-groups", "").ok(http.StatusOK, &list)
	require.Len(t, list.Items, 2)
}

func TestGroupNames_NormalizationFormsAreOneName(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for name, spellings := range map[string][]string{
		"Йод":      {"И\u0306од", "йод", "ЙОД"},
		"Café  2 ": {"CAFE\u0301 2", "café\u00a02"},
		"Straße":   {"STRASSE", "straẞe"},
		"ΣΑΣ":      {"σας", "σασ"},
		"가":        {"\u1100\u1161"},
	} {
		s.createGroup(name)
		for _, spelling := range spellings {
			s.call(http.MethodPost, "/accounts/user-groups", `{"name":`+asJSON(t, spelling)+`}`).problem(errcode.NameTaken)
		}
	}
	// These look different, and are.
	for _, name := range []string{"VIP", "ＶＩＰ", "V I P", "VІP"} {
		s.createGroup(name)
	}
}

func TestGroupNames_TextsThatAreNoName(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	vip := s.createGroup("VIP")
	for _, text := range []string{
		" ", "\u3000", "\u200b", "\u2800", "\u3164", "\u00ad\u202e", "a,b", "a\u0007b", "a\u0000b", "a\u007fb", "\ue000", "\uffff", "\ufffd", "\u0378",
	} {
		t.Run(fmt.Sprintf("%+q", text), func(t *testing.T) {
			name := asJSON(t, text)
			p := s.call(http.MethodPost, "/accounts/user-groups", `{"name":`+name+`}`).problem(errcode.Validation)
			require.Equal(t, []string{"name invalid_name"}, p.faults())
			p = s.call(http.MethodPatch, "/accounts/user-groups/"+vip.ID.String(), `{"name":`+name+`}`).problem(errcode.Validation)
			require.Equal(t, []string{"name invalid_name"}, p.faults())
			p = s.call(http.MethodPost, "/accounts/users", `{"groups":["VIP",`+name+`,"nothing"]}`).problem(errcode.Validation)
			require.Equal(t, []string{"groups[1] unknown", "groups[2] unknown"}, p.faults())
			var bulk BulkResult
			s.bulk("", `{"users":[{"phone":"+79990010000","user_groups":["VIP",`+name+`]}]}`).ok(http.StatusOK, &bulk)
			require.Equal(t, []string{"1 invalid unknown_group user_groups"}, bulk.outcomes(t))
		})
	}
}

func TestContactTypes_OneSpelling(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var telegram, icq ContactType
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":" Telegram\u200b","on_second":"allow"}`).ok(http.StatusCreated, &telegram)
	require.Equal(t, "telegram", telegram.Name)
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"icq","on_second":"allow"}`).ok(http.StatusCreated, &icq)
	user := s.createIvan()
	for i, text := range []string{"telegram", "TELEGRAM", "telegram\u00a0", "tele\u00adgram", "\u202etelegram", "telegram\ufe0f", "\u3000telegram\n"} {
		t.Run(fmt.Sprintf("%+q", text), func(t *testing.T) {
			name := asJSON(t, text)
			s.call(http.MethodPost, "/accounts/contact-types", `{"name":`+name+`,"on_second":"allow"}`).problem(errcode.NameTaken)
			s.call(http.MethodPatch, "/accounts/contact-types/"+icq.ID.String(), `{"name":`+name+`}`).problem(errcode.NameTaken)
			var contact Contact
			s.call(http.MethodPost, "/accounts/contacts", fmt.Sprintf(`{"user_id":"%s","type":%s,"value":"a%d"}`, user.ID, name, i)).
				ok(http.StatusCreated, &contact)
			require.Equal(t, "telegram", contact.Type)
			var created UserDetail
			s.call(http.MethodPost, "/accounts/users", fmt.Sprintf(`{"contacts":[{"type":%s,"value":"b%d"}]}`, name, i)).
				ok(http.StatusCreated, &created)
			require.Equal(t, "telegram", created.Contacts[0].Type)
		})
	}
	// A type of identifiers keeps its rules in every spelling of its name.
	p := s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"Phone\u00a0","value":"telegram"}]}`).problem(errcode.Validation)
	require.Equal(t, []string{"contacts[0].value invalid_phone"}, p.faults())
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"E\u00admail","on_second":"allow"}`).problem(errcode.Validation)
	for _, text := range []string{"\u3000", "теlegram", "ｔelegram", "tele gram", "a\u0007"} {
		p := s.call(http.MethodPost, "/accounts/contact-types", `{"name":`+asJSON(t, text)+`,"on_second":"allow"}`).problem(errcode.Validation)
		require.Equal(t, []string{"name invalid_name"}, p.faults(), "%+q", text)
		p = s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":`+asJSON(t, text)+`,"value":"x"}]}`).problem(errcode.Validation)
		require.Equal(t, []string{"contacts[0].type unknown"}, p.faults(), "%+q", text)
	}
}

func TestCustomContacts_ValuesHaveOneSpelling(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"telegram","on_second":"allow"}`).ok(http.StatusCreated, nil)
	user := s.createIvan()
	add := func(value string) answer {
		return s.call(http.MethodPost, "/accounts/contacts", `{"user_id":"`+user.ID.String()+`","type":"telegram","value":`+asJSON(t, value)+`}`)
	}
	var contact, second Contact
	add(" @Ivan\u200b Петров ").ok(http.StatusCreated, &contact)
	require.Equal(t, " @Ivan\u200b Петров ", contact.Value, "as it was given")
	add("@anna").ok(http.StatusCreated, &second)
	for _, value := range []string{"@ivan петров", "@IVAN\u00a0ПЕТРОВ", "@ivan  петров", "\u202e@ivan петров", "@iv\u00adan петров\n"} {
		require.Equal(t, []string{"value taken"}, add(value).problem(errcode.IdentifierTaken).faults(), "%+q", value)
		s.call(http.MethodPatch, "/accounts/contacts/"+second.ID.String(), `{"value":`+asJSON(t, value)+`}`).problem(errcode.IdentifierTaken)
	}
	for value, code := range map[string]string{
		"\u3000": "empty", "\u200b": "empty", "a\u0000b": "invalid_text", "a\u001bb": "invalid_text", "\ue000": "invalid_text",
	} {
		require.Equal(t, []string{"value " + code}, add(value).problem(errcode.Validation).faults(), "%+q", value)
	}
}

// Spellings of one identifier find one user, and none of them creates a second user.
func TestIdentifiers_SpellingsNameOneUser(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	for _, c := range []struct {
		kind, stored string
		spellings    []string
	}{
		{"phone", "+79991110001", []string{"\u202a+7 (999) 111-00-01\u202c", "+7\u00a0999\u2011111\u201100\u201101", "8 999 111 00 01\u200f", "＋７９９９１１１０００１", "+7 8 999 111 00 01"}},
		{"phone", "+44 20 7946 0958", []string{"+44 (0)20 7946 0958", "+44 (020) 7946-0958", "0044 (0)20 7946 0958", "\u200e+44 (0)\u00a020 7946 0958"}},
		{"phone", "+54 9 11 5555-1234", []string{"+54 11 15 5555-1234", "+54 (011) 15 5555-1234"}},
		{"phone", "+52 1 55 1234 5678", []string{"+52 55 1234 5678", "+52 (1) 55 1234 5678"}},
		{"phone", "+39 06 1234 5678", []string{"+39 (0)6 1234 5678"}},
		{"email", "user@example.com", []string{"\u200eUser@example.com", "us\u00ader@example.com", "user@exam\u200bple.com", "\ufeffuser@example.com\ufe0f", "user\u2060@example.com"}},
		{"email", "σας@example.com", []string{"ΣΑΣ@example.com", "σασ@example.com"}},
		{"email", "first-last@σασ.gr", []string{"first\u2011last@σας.gr", "first-last@ΣΑΣ.GR"}},
		{"second_login", "σας", []string{"ΣΑΣ", "σασ"}},
	} {
		var user UserDetail
		s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"`+c.kind+`","value":`+asJSON(t, c.stored)+`}]}`).ok(http.StatusCreated, &user)
		for _, text := range append(c.spellings, c.stored) {
			p := s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"`+c.kind+`","value":`+asJSON(t, text)+`}]}`).problem(errcode.IdentifierTaken)
			require.Equal(t, []string{"contacts[0].value taken"}, p.faults(), "%+q", text)
			var found UserDetail
			s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+url.QueryEscape(text), "").ok(http.StatusOK, &found)
			require.Equal(t, user.ID, found.ID, "%+q", text)
		}
	}
	for _, text := range []string{"pаypal@example.com", "user@pаypal.com", "user@xn--pypal-4ve.com", "gοοgle@example.com"} {
		p := s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"email","value":`+asJSON(t, text)+`}]}`).problem(errcode.Validation)
		require.Equal(t, []string{"contacts[0].value invalid_email"}, p.faults(), text)
	}
}

// The names of the columns of a file follow the same rule.
func TestUpload_HeaderSpellings(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var got BulkResult
	s.upload("", "users.csv", "\ufeff\u200bPhone\u00a0;\u202eUSER_\u00adGROUPS\u3000\n+79990010001;\n").ok(http.StatusOK, &got)
	require.Equal(t, []string{"2 created"}, got.outcomes(t))
}

// The length of a name is that of its canonical form, on every route.
func TestNames_LengthOfTheCanonicalForm(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const longest = 100
	for i, c := range []struct {
		text string
		ok   bool
	}{
		{" \u200b" + strings.Repeat("ж", longest) + "\u3000", true},
		{strings.Repeat("и\u0306", longest), true},
		{strings.Repeat("x\u200b", longest), true},
		{"a" + strings.Repeat(" ", 150) + "b", true},
		{strings.Repeat("ß", longest), true}, // its key has 200 characters
		{strings.Repeat("ж", longest+1), false},
		{" " + strings.Repeat("y", longest+1), false},
		{strings.Repeat("и\u0306", longest+1), false},
	} {
		at := fmt.Sprintf("%+.20q", c.text)
		a := s.call(http.MethodPost, "/accounts/user-groups", `{"name":`+asJSON(t, c.text)+`}`)
		if !c.ok {
			require.Equal(t, []string{"name too_long"}, a.problem(errcode.Validation).faults(), at)
			continue
		}
		var group Group
		a.ok(http.StatusCreated, &group)
		s.call(http.MethodPatch, "/accounts/user-groups/"+group.ID.String(), `{"name":`+asJSON(t, c.text)+`}`).ok(http.StatusOK, nil)
		var user UserDetail
		s.call(http.MethodPost, "/accounts/users", `{"groups":[`+asJSON(t, c.text)+`]}`).ok(http.StatusCreated, &user)
		require.Equal(t, group.ID, user.Groups[0].ID, at)
		var bulk BulkResult
		s.bulk("", fmt.Sprintf(`{"users":[{"phone":"+7999001%04d","user_groups":[%s]}]}`, i, asJSON(t, c.text))).ok(http.StatusOK, &bulk)
		require.Equal(t, []string{"1 created"}, bulk.outcomes(t), at)
	}
	padded := asJSON(t, strings.Repeat("a", 63)+strings.Repeat("\u200b ", 40))
	var typ ContactType
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":`+padded+`,"on_second":"allow"}`).ok(http.StatusCreated, &typ)
	require.Equal(t, strings.Repeat("a", 63), typ.Name)
	s.call(http.MethodPatch, "/accounts/contact-types/"+typ.ID.String(), `{"name":`+padded+`}`).ok(http.StatusOK, nil)
	s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":`+padded+`,"value":"x"}]}`).ok(http.StatusCreated, nil)
	s.call(http.MethodPost, "/accounts/contacts", `{"user_id":"`+s.createUser(`{}`).ID.String()+`","type":`+padded+`,"value":"y"}`).
		ok(http.StatusCreated, nil)
	p := s.call(http.MethodPost, "/accounts/contact-types", `{"name":"`+strings.Repeat("b", 64)+`","on_second":"allow"}`).problem(errcode.Validation)
	require.Equal(t, []string{"name invalid_name"}, p.faults())
}

// identifierSpellings returns the texts of the vectors of internal/identifier by kind and canonical form, without
// those that may not be written.
func identifierSpellings(t *testing.T) map[identifier.Identifier][]string {
	t.Helper()
	files, err := filepath.Glob("../identifier/testdata/*.json")
	require.NoError(t, err)
	parser, err := identifier.NewParser("RU")
	require.NoError(t, err)
	spellings := map[identifier.Identifier][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var vectors []struct{ In, Canonical string }
		require.NoError(t, json.Unmarshal(text, &vectors), file)
		for _, v := range vectors {
			id, err := parser.Parse(v.In)
			if err != nil || id.Kind == identifier.UUID || utf8.RuneCountInString(v.In) > maxIdentifierRunes {
				continue
			}
			if _, err := parser.Canonical(id.Kind, v.In); err == nil {
				spellings[id] = append(spellings[id], v.In)
			}
		}
	}
	require.Greater(t, len(spellings), 100)
	return spellings
}

// Each text that internal/identifier reads as an identifier finds the user that has it, on every route that
// searches, and is taken on every route that writes it.
func TestIdentifiers_EverySpellingOnEveryRoute(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	var other UserDetail
	s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"phone","value":"+79990000000"},{"type":"email","value":"o@example.org"},`+
		`{"type":"second_login","value":"other"}]}`).ok(http.StatusCreated, &other)
	contactOf := map[string]string{}
	for _, c := range other.Contacts {
		contactOf[c.Type] = "/accounts/contacts/" + c.ID.String()
	}
	rows, lines, phones := map[int][]string{}, map[int][]string{}, 0 // by the index of the spelling: one phone once in a call
	for id, texts := range identifierSpellings(t) {
		kind := string(id.Kind)
		var user UserDetail
		s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"`+kind+`","value":`+asJSON(t, texts[0])+`}]}`).ok(http.StatusCreated, &user)
		for i, text := range append(texts, id.Canonical) {
			at, value := fmt.Sprintf("%+q", text), asJSON(t, text)
			var found MatchedUser
			// In a query a space before the first digit is a plus that a client lost.
			query := strings.ReplaceAll(url.QueryEscape(strings.TrimLeft(text, " ")), "+", "%20")
			a := s.call(http.MethodGet, "/accounts/users/by-identifier?identifier="+query, "")
			require.Equal(t, http.StatusOK, a.Code, at)
			a.ok(http.StatusOK, &found)
			require.Equal(t, []string{user.ID.String(), kind}, []string{found.ID.String(), found.MatchedBy}, at)
			require.Contains(t, s.lookup(`{"identifiers":[`+value+`]}`).Body.String(), user.ID.String(), at)
			s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"`+kind+`","value":`+value+`}]}`).problem(errcode.IdentifierTaken)
			s.call(http.MethodPatch, contactOf[kind], `{"value":`+value+`}`).problem(errcode.IdentifierTaken)
			if kind == "phone" {
				phones++
				rows[i] = append(rows[i], `{"phone":`+value+`,"user_groups":[]}`)
				lines[i] = append(lines[i], `"`+strings.ReplaceAll(text, `"`, `""`)+`"`)
			}
		}
	}
	require.Greater(t, phones, 50)
	for i := range rows {
		var bulk BulkResult
		s.bulk("", `{"users":[`+strings.Join(rows[i], ",")+`]}`).ok(http.StatusOK, &bulk)
		require.Equal(t, len(rows[i]), bulk.Exists, "%v %v", rows[i], bulk.outcomes(t))
		s.upload("", "users.csv", "phone\n"+strings.Join(lines[i], "\n")+"\n").ok(http.StatusOK, &bulk)
		require.Equal(t, len(rows[i]), bulk.Exists, "%v %v", lines[i], bulk.outcomes(t))
	}
}

// Of concurrent requests that create one thing in different spellings, one succeeds, and the others are 409.
func TestNames_ConcurrentSpellings(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.call(http.MethodPost, "/accounts/contact-types", `{"name":"telegram","on_second":"allow"}`).ok(http.StatusCreated, nil)
	user := func(typ string) func(string) answer {
		return func(text string) answer {
			return s.call(http.MethodPost, "/accounts/users", `{"contacts":[{"type":"`+typ+`","value":`+asJSON(t, text)+`}]}`)
		}
	}
	named := func(path, rest string) func(string) answer {
		return func(text string) answer {
			return s.call(http.MethodPost, "/accounts/"+path, `{"name":`+asJSON(t, text)+rest+`}`)
		}
	}
	for name, test := range map[string]struct {
		create    func(text string) answer
		spellings []string
	}{
		"group":        {named("user-groups", ""), spellingsOfVIP},
		"contact type": {named("contact-types", `,"on_second":"allow"`), []string{"signal", "SIGNAL", " signal", "si\u200bgnal", "\u017fignal", "signal\ufe0f"}},
		"custom value": {user("telegram"), spellingsOfVIP},
		"phone": {user("phone"), []string{"+44 20 7946 0958", "+44 (0)20 7946 0958", "tel:+442079460958", "0044(0)2079460958", "+44\u2013207946\u20110958",
			"\u202a+442079460958\u202c", "＋４４２０７９４６０９５８"}},
		"email": {user("email"), []string{"user@straße.de", "User@STRAẞE.de", "user@xn--strae-oqa.de", "USER@XN--STRAE-OQA.DE", "us\u00ader@straße。de",
			"user＠straße.de"}},
		"login": {user("second_login"), []string{"ΣΑΣ", "σας", "σασ", "Σας"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			codes := make([]int, len(test.spellings))
			var running sync.WaitGroup
			for i, text := range test.spellings {
				running.Go(func() { codes[i] = test.create(text).Code })
			}
			running.Wait()
			slices.Sort(codes)
			require.Equal(t, append([]int{http.StatusCreated}, slices.Repeat([]int{http.StatusConflict}, len(codes)-1)...), codes)
		})
	}
}
