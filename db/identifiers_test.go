package db_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// vectors are the canonical identifiers of the files that also test internal/identifier, by canonical
// text.
func vectors(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../internal/identifier/testdata/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	kinds := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var some []struct{ Kind, Canonical string }
		require.NoError(t, json.Unmarshal(text, &some), file)
		for _, v := range some {
			if v.Canonical != "" {
				kinds[v.Canonical] = v.Kind
			}
		}
	}
	require.Greater(t, len(kinds), 50)
	return kinds
}

// storedAs returns the identifier types under which the database stores a value.
func (a *api) storedAs(normalized string) (kinds []string) {
	a.t.Helper()
	for _, kind := range []string{"phone", "email", "second_login"} {
		tx, err := a.conn.Begin(a.t.Context())
		require.NoError(a.t, err)
		_, err = writerIn(tx).CreateUserV1(a.t.Context(), newUser(nil, same(kind, normalized)))
		if err == nil {
			kinds = append(kinds, kind)
		} else {
			requireState(a.t, err, check, "user_contacts_"+kind+"_canonical", "")
		}
		require.NoError(a.t, tx.Rollback(a.t.Context()))
	}
	return kinds
}

func TestCanonicalVectorsAreStoredUnderTheirOwnKindOnly(t *testing.T) {
	t.Parallel()
	a := open(t)
	for canonical, kind := range vectors(t) {
		if kind == "uuid" {
			require.Empty(t, a.storedAs(canonical), "%q", canonical)
		} else {
			require.Equal(t, []string{kind}, a.storedAs(canonical), "%q", canonical)
		}
	}
}

func TestCanonicalVectorsAreFound(t *testing.T) {
	t.Parallel()
	a := open(t)
	byHand := connect(t, a.UncheckedURL("no function creates a user with a given id"))
	for canonical, kind := range vectors(t) {
		if kind == "uuid" {
			execute(t, byHand, "INSERT INTO accounts.users (id) VALUES ($1)", canonical)
		} else {
			a.createUser(nil, same(kind, canonical))
		}
		got, err := a.read.GetUserByIdentifierV1(t.Context(), canonical)
		require.NoError(t, err, "%q", canonical)
		require.Equal(t, kind, got.MatchedBy, "%q", canonical)
	}
}

// Whatever the database stores, one lookup by the same text finds, and under the kind that it was
// stored as: the CHECKs and get_user_by_identifier_v1 agree about every form.
func TestWhatIsStoredIsFoundUnderItsKind(t *testing.T) {
	t.Parallel()
	a := open(t)
	a.super = connect(t, a.UncheckedURL("values that no function accepts, in thousands of subtransactions"))
	execute(t, a.super, "CREATE TEMPORARY TABLE found (kind text, value text, matched_by text)")
	execute(t, a.super, `
		DO $$
		DECLARE
		    v_pieces text[] := ARRAY['', '+', '1234567', '123456', '(', ')', ' ', '.', '-', 'a', '@', 'b.c',
		                             '123e4567e89b12d3a456426614174000', '{', '}'];
		    v_user uuid;
		    v record;
		BEGIN
		    FOR v IN SELECT DISTINCT a || b || c AS value, t.id, t.name, t.single
		               FROM unnest(v_pieces) AS a, unnest(v_pieces) AS b, unnest(v_pieces) AS c, accounts.contact_types AS t
		    LOOP
		        BEGIN
		            INSERT INTO accounts.users DEFAULT VALUES RETURNING id INTO v_user;
		            INSERT INTO accounts.user_contacts (user_id, contact_type_id, value, normalized, single)
		            VALUES (v_user, v.id, v.value, v.value, v.single);
		            INSERT INTO found
		            SELECT v.name, v.value, (SELECT matched_by FROM accounts.get_user_by_identifier_v1(v.value));
		        EXCEPTION WHEN check_violation THEN NULL;
		        END;
		    END LOOP;
		END $$`)
	require.Greater(t, value[int](t, a.super, "SELECT count(*) FROM found"), 300)
	require.Len(t, column[string](t, a.super, "SELECT DISTINCT kind FROM found"), 3)
	require.Empty(t, column[string](t, a.super,
		"SELECT kind || ' ' || value FROM found WHERE matched_by IS DISTINCT FROM kind ORDER BY 1 LIMIT 20"))
}

// TestPhonesAreNoLogins checks that the database refuses a second_login that the service would look up as a phone.
func TestPhonesAreNoLogins(t *testing.T) {
	t.Parallel()
	a := open(t)
	for _, text := range []string{
		"tel:+79991234567", "tel:ivan", "0049(0)15123456789", "00-86-(0)-131.2345.6789", "0036(06)201234567",
		"03ー1234ー5678", "89991234567", "8(999)123-45-67", "+7999", "+",
	} {
		require.Empty(t, a.storedAs(text), "%q", text)
	}
	for _, text := range []string{"telegram", "0049015123456789012", "4111111111111111", "(00)4111111111111111111", "ユーザー", "00(ivan)"} {
		require.Equal(t, []string{"second_login"}, a.storedAs(text), "%q", text)
	}
}
