package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/identifier"
)

// The identifiers of the one demo user that examples name.
const (
	demoPhone = "+79991234567"
	demoEmail = "demo@example.com"
	demoLogin = "demo_user"
)

// demoSeed makes every machine's demo users the same.
const demoSeed = 20261123

var (
	demoGroups = []string{"client", "driver", "manager", "operator", "partner", "support"}
	cities     = []string{"Москва", "Санкт-Петербург", "Казань", "Екатеринбург", "Новосибирск", "Самара", "Пермь"}
	// mobileCodes are real ones, because the numbering plan is asked on writes; 999 is the demo user's.
	mobileCodes = []string{"903", "905", "909", "910", "915", "916", "921", "925", "926", "963", "977", "985"}

	maleNames   = []string{"Александр", "Дмитрий", "Иван", "Максим", "Михаил", "Никита", "Павел", "Роман", "Сергей", "Тимур"}
	femaleNames = []string{"Алина", "Анна", "Вера", "Дарья", "Екатерина", "Ирина", "Мария", "Наталья", "Ольга", "Полина"}
	// surnames take an "а" for a woman.
	surnames = []string{
		"Иванов", "Петров", "Сидоров", "Смирнов", "Кузнецов", "Попов", "Васильев", "Соколов", "Морозов",
		"Волков", "Лебедев", "Новиков", "Фёдоров", "Егоров", "Козлов", "Степанов", "Орлов", "Андреев",
	}
)

// latin spells names in addresses and logins.
var latin = strings.NewReplacer(
	"а", "a", "б", "b", "в", "v", "г", "g", "д", "d", "е", "e", "ё", "e", "ж", "zh", "з", "z", "и", "i", "й", "y",
	"к", "k", "л", "l", "м", "m", "н", "n", "о", "o", "п", "p", "р", "r", "с", "s", "т", "t", "у", "u", "ф", "f",
	"х", "kh", "ц", "ts", "ч", "ch", "ш", "sh", "щ", "sch", "ъ", "", "ы", "y", "ь", "", "э", "e", "ю", "yu", "я", "ya",
)

type profile struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	City      string `json:"city"`
	Locale    string `json:"locale"`
}

// demoUser is one user as a client would send it.
type demoUser struct {
	profile profile
	phone   string
	email   string
	login   string
	groups  []string
}

// ensureDemoUsers creates count users, the well-known one among them, if that one is not there, and
// returns its id.
func (s *stack) ensureDemoUsers(ctx context.Context, count int) (id string, err error) {
	conn, err := pgx.Connect(ctx, s.cluster.URLs(database, s.state.Passwords).WriteURL)
	if err != nil {
		return "", fmt.Errorf("load demo users: %w", err)
	}
	defer conn.Close(ctx)
	found, err := read.New(conn).GetUserByIdentifierV1(ctx, demoPhone)
	if err == nil {
		return found.ID.String(), nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("load demo users: %w", err)
	}
	say("creating %d demo users", count)
	// All or none: a start that is interrupted leaves nothing behind.
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		id, err = createUsers(ctx, write.New(tx), demoUsers(count))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("load demo users: %w", err)
	}
	return id, nil
}

// createUsers returns the id of the first user.
func createUsers(ctx context.Context, queries *write.Queries, users []demoUser) (id string, err error) {
	parser, err := identifier.NewParser("RU")
	if err != nil {
		return "", err
	}
	for _, group := range demoGroups {
		if _, err := queries.CreateUserGroupV1(ctx, group, group); err != nil { // in small letters
			return "", err
		}
	}
	for i, user := range users {
		params, err := user.params(parser)
		if err != nil {
			return "", err
		}
		created, err := queries.CreateUserV1(ctx, params)
		if err != nil {
			return "", err
		}
		if i == 0 {
			id = created.ID.String()
		}
	}
	return id, nil
}

func (u demoUser) params(parser *identifier.Parser) (write.CreateUserV1Params, error) {
	document, err := json.Marshal(u.profile)
	if err != nil {
		return write.CreateUserV1Params{}, err
	}
	params := write.CreateUserV1Params{IsActive: true, Profile: document, GroupKeys: u.groups}
	for _, contact := range []struct {
		kind  identifier.Kind
		value string
	}{{identifier.Phone, u.phone}, {identifier.Email, u.email}, {identifier.SecondLogin, u.login}} {
		canonical, err := parser.Canonical(contact.kind, contact.value)
		if err != nil {
			return write.CreateUserV1Params{}, err
		}
		params.ContactTypes = append(params.ContactTypes, string(contact.kind))
		params.ContactValues = append(params.ContactValues, contact.value)
		params.ContactNormalized = append(params.ContactNormalized, canonical)
	}
	return params, nil
}

// demoUsers returns at least the well-known user, and count users in all.
func demoUsers(count int) []demoUser {
	users := []demoUser{{
		profile: profile{FirstName: "Иван", LastName: "Иванов", City: "Москва", Locale: "ru"},
		phone:   demoPhone,
		email:   demoEmail,
		login:   demoLogin,
		groups:  []string{"client", "manager"},
	}}
	random := rand.New(rand.NewPCG(demoSeed, demoSeed))
	for n := 1; n < count; n++ {
		users = append(users, randomUser(random, n))
	}
	return users
}

// randomUser returns user n, whose number makes its identifiers unique.
func randomUser(random *rand.Rand, n int) demoUser {
	pick := func(of []string) string { return of[random.IntN(len(of))] }
	first, last := pick(maleNames), pick(surnames)
	if random.IntN(2) == 0 {
		first, last = pick(femaleNames), last+"а"
	}
	name := latin.Replace(strings.ToLower(first + "." + last))
	// The last seven digits: a multiplier without a common factor with 10^7 scatters and never repeats.
	const digits, scatter = 10_000_000, 7_654_321
	subscriber := fmt.Sprintf("%07d", n*scatter%digits)
	groups := []string{"client"}
	if extra := pick(demoGroups); extra != "client" {
		groups = append(groups, extra)
	}
	return demoUser{
		profile: profile{FirstName: first, LastName: last, City: pick(cities), Locale: "ru"},
		phone:   fmt.Sprintf("+7 (%s) %s-%s-%s", pick(mobileCodes), subscriber[:3], subscriber[3:5], subscriber[5:]),
		email:   fmt.Sprintf("%s%d@example.com", name, n),
		login:   fmt.Sprintf("%s_%d", strings.ReplaceAll(name, ".", "_"), n),
		groups:  groups,
	}
}
