package history

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The histories here are made by hand: the first shows what is fine, and each of the others what the
// checker must not let pass, or must not complain about. Times are in milliseconds.

var atFirst = user{Version: 1, Phone: "+79030000000", PhoneID: "p1", Login: "user_0_login_0", Member: true}

func changed(change func(*user)) user {
	u := atFirst
	u.Version++
	change(&u)
	return u
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func patched(call, back int, n int64) view {
	e := &event{Kind: patch, N: n, Call: ms(call), Return: ms(back), Hidden: ms(back), Status: 200}
	e.Doc = &document{Version: n + 1, Groups: []named{{}}, Contacts: []contact{
		{ID: atFirst.PhoneID, Type: "phone", Value: atFirst.Phone}, {Type: "second_login", Value: atFirst.Login},
	}}
	e.Doc.Profile.N = n
	return view{event: e, role: act}
}

func lost(v view) view {
	v.Status, v.Doc, v.Hidden = 0, nil, v.Return+relayBound
	return v
}

func saw(call, back int, f freshness, seen user) view {
	return view{event: &event{Kind: getByID, Status: 200, Call: ms(call), Return: ms(back), Freshness: f}, role: observe, seen: seen}
}

func missed(call, back int, f freshness, identifier string) view {
	return view{event: &event{Kind: getByLogin, Status: 404, Text: identifier, Call: ms(call), Return: ms(back), Freshness: f}, role: lacks}
}

func addedLogin(call, back int, value string) view {
	return view{event: &event{Kind: addLogin, Status: 201, Text: value, Call: ms(call), Return: ms(back), Hidden: ms(back)}, role: act}
}

func promoted(call, back int, seen user) view {
	return view{event: &event{Kind: promotion, Call: ms(call), Return: ms(back)}, role: failover, seen: seen}
}

func TestCheckerOfUsers(t *testing.T) {
	t.Parallel()
	second := changed(func(u *user) { u.N = 1 })
	deferred := patched(0, 10, 1)
	deferred.Hidden += relayBound
	other := changed(func(u *user) { u.Login = "user_0_login_1" })
	for _, test := range []struct {
		name  string
		fine  bool
		views []view
	}{
		{"a write and what follows it", true, []view{patched(0, 10, 1), saw(11, 12, cached, second), saw(11, 12, strict, second)}},
		{"an older state after the write was acknowledged", false, []view{patched(0, 10, 1), saw(11, 12, cached, atFirst)}},
		{"an older state before", true, []view{patched(0, 10, 1), saw(1, 2, strict, second), saw(3, 12, cached, atFirst)}},
		{"an older state before, from the primary", false, []view{patched(0, 10, 1), saw(1, 2, strict, second), saw(3, 12, strict, atFirst)}},
		{"an older state after the next write was acknowledged", false,
			[]view{patched(0, 50, 1), patched(5, 10, 2), saw(11, 12, cached, atFirst)}},
		{"a deferred invalidation within its bound", true, []view{deferred, saw(500, 501, cached, atFirst)}},
		{"a deferred invalidation beyond its bound", false, []view{deferred, saw(1011, 1012, cached, atFirst)}},
		{"a replica within its proof's age", true, []view{patched(0, 10, 1), saw(5000, 5001, lagging, atFirst)}},
		{"a replica beyond it", false, []view{patched(0, 10, 1), saw(5011, 5012, lagging, atFirst)}},
		{"a state that never was", false, []view{saw(0, 1, uncertain, changed(func(u *user) { u.N = 7 }))}},
		{"a lost answer: made", true, []view{lost(patched(0, 10, 1)), saw(900, 901, cached, second)}},
		{"a lost answer: not made", true, []view{lost(patched(0, 10, 1)), saw(900, 901, strict, atFirst)}},
		{"a lost answer: made and unmade", false,
			[]view{lost(patched(0, 10, 1)), saw(900, 901, strict, second), saw(1100, 1101, cached, atFirst)}},
		{"a stale miss", false, []view{addedLogin(0, 10, other.Login), missed(11, 12, cached, other.Login)}},
		{"a miss before", true, []view{addedLogin(0, 10, other.Login), missed(5, 12, cached, other.Login)}},
		{"a stale hit of an identifier", false, []view{addedLogin(0, 10, other.Login), saw(11, 12, cached, atFirst)}},
		{"a write that does not touch the identifier", true, []view{
			addedLogin(0, 100, other.Login), patched(20, 30, 1).sees(3, other.Login), missed(40, 41, cached, other.Login)}},
		{"a promotion that keeps a write", true, []view{patched(0, 10, 1), promoted(20, 30, second), saw(40, 41, cached, second)}},
		{"a promotion that loses a write", true, []view{
			patched(0, 10, 1), promoted(20, 30, atFirst), saw(35, 36, uncertain, second), saw(40, 41, cached, atFirst)}},
		{"a lost write that stays visible", false, []view{patched(0, 10, 1), promoted(20, 30, atFirst), saw(40, 41, cached, second)}},
		{"a promotion to what never was", false, []view{promoted(20, 30, second)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.fine, linearizable("user", userModel(atFirst), test.views) == nil)
		})
	}
}

// sees changes what the answer of a PATCH shows.
func (v view) sees(version int64, login string) view {
	v.Doc.Version, v.Doc.Contacts[1].Value = version, login
	return v
}

func TestCheckerOfGroups(t *testing.T) {
	t.Parallel()
	renamed := view{event: &event{Kind: rename, Status: 200, Text: "new", Call: ms(0), Return: ms(10), Hidden: ms(10)}, role: act}
	shows := func(call int, name string) view {
		return view{event: &event{Kind: getGroups, Status: 200, Call: ms(call), Return: ms(call + 1), Freshness: cached}, role: observe, name: name}
	}
	require.Empty(t, linearizable("group", groupModel("old"), []view{renamed, shows(5, "old"), shows(11, "new")}))
	require.Empty(t, linearizable("group", groupModel("old"), []view{renamed, shows(5, "new"), shows(7, "old")}))
	require.NotEmpty(t, linearizable("group", groupModel("old"), []view{renamed, shows(11, "old")}))
}
