package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// maxBulkBytes bounds the body of a bulk call: 1000 users with profiles of 16 KiB.
	maxBulkBytes = 17 << 20
	// maxBulkValues bounds the values of such a body, one for every 17 bytes of it.
	maxBulkValues = 1_000_000
)

// NewUsers is the body that creates many users.
type NewUsers struct {
	Interface string       `json:"interface,omitempty" maxLength:"255" example:"backoffice" doc:"Older clients send it; it is not used."`
	Users     []NewUserRow `json:"users" nullable:"false" minItems:"1" maxItems:"1000"`
}

// NewUserRow is one user of a NewUsers.
type NewUserRow struct {
	Phone      string     `json:"phone" example:"+7 (999) 123-45-67"`
	UserGroups []string   `json:"user_groups" nullable:"false" maxItems:"100" example:"[\"client\"]" doc:"Names of groups."`
	Profile    freeObject `json:"profile,omitempty"`
}

// BulkResult has the result of every row; the counts add up to total.
type BulkResult struct {
	Total int `json:"total" example:"1"`
	Counts
	Rows []BulkRow `json:"rows" nullable:"false"`
}

// Counts are how many rows ended in which way.
type Counts struct {
	Created  int `json:"created" example:"1" doc:"New users."`
	Exists   int `json:"exists" doc:"The phone belongs to a user already, and nothing was changed."`
	Merged   int `json:"merged" doc:"Groups or the profile of an existing user were completed."`
	Conflict int `json:"conflict" doc:"The phone comes twice."`
	Invalid  int `json:"invalid" doc:"The row is invalid; its code names the reason."`
}

// BulkRow is the result of one row.
type BulkRow struct {
	Row    int        `json:"row" example:"1" doc:"From 1; of an upload as a spreadsheet program shows it."`
	Status string     `json:"status" enum:"created,exists,merged,conflict,invalid"`
	Code   string     `json:"code,omitempty" example:"invalid_phone" doc:"Why the row was refused."`
	Column string     `json:"column,omitempty" example:"phone" doc:"The invalid column."`
	UserID *uuid.UUID `json:"user_id,omitempty" doc:"A token without the scope accounts:read gets it for created users only."`
}

var (
	onConflictParam = queryChoice("on_conflict",
		"What happens to a phone that belongs to a user: skip leaves the user as it is, merge adds groups and patches the "+
			"profile, error writes nothing at all and answers 409.",
		string(accounts.Skip), string(accounts.Skip), string(accounts.Merge), string(accounts.Error))
	dryRunParam = queryBoolean("dry_run", "Return what would happen, and write nothing. False if left out. With on_conflict=merge, a token without "+
		"the scope accounts:read gets exists for every user that exists.")
)

func (a *API) addBulk() {
	a.add(route{
		method: http.MethodPost, path: "/accounts/users/bulk", id: "create-users", tag: tagUsers,
		summary: "Create up to 1000 users by phone", access: writeAccess,
		description: "Invalid rows do not affect other rows. The same call again creates nothing twice.",
		params:      []*huma.Param{onConflictParam, dryRunParam},
		body:        reflect.TypeFor[NewUsers](), maxBody: maxBulkBytes, maxValues: maxBulkValues, slow: true,
		status: http.StatusOK, result: reflect.TypeFor[BulkResult](),
		errors: []errcode.Code{errcode.IdentifierTaken, errcode.OutcomeUnknown}, handle: a.createUsers,
	})
}

func (a *API) createUsers(ctx context.Context, w *response, in *input) error {
	options := in.bulkOptions()
	body := readBody[NewUsers](in)
	rows := make([]accounts.BulkRow, len(body.Users))
	for i, user := range body.Users {
		rows[i] = accounts.BulkRow{
			Number: i + 1, Phone: user.Phone, Groups: user.UserGroups, Profile: json.RawMessage(user.Profile),
		}
	}
	in.alsoCheck(func() []errcode.Field { return a.accounts.CheckBulk(ctx, rows) })
	if err := in.err(); err != nil {
		return err
	}
	result, err := a.accounts.BulkCreate(ctx, rows, options)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, newBulkResult(result, w.mayRead()))
}

func (in *input) bulkOptions() accounts.BulkOptions {
	dryRun := in.boolean(dryRunParam)
	options := accounts.BulkOptions{
		OnConflict: accounts.OnConflict(in.choice(onConflictParam)), DryRun: dryRun != nil && *dryRun,
	}
	if options.DryRun && options.OnConflict == accounts.Merge && !in.w.mayRead() {
		// A dry run that compared groups and profiles would let the token test guesses of them without
		// any trace.
		options.OnConflict = accounts.Skip
	}
	return options
}

// newBulkResult leaves out the ids of existing users unless the token may read them: a list of phones
// would otherwise find the users that they belong to.
func newBulkResult(result accounts.BulkResult, mayRead bool) BulkResult {
	answer := BulkResult{
		Total: len(result.Rows), Counts: Counts(result.Counts), Rows: make([]BulkRow, len(result.Rows)),
	}
	for i, r := range result.Rows {
		answer.Rows[i] = BulkRow{Row: r.Number, Status: r.Status, Code: r.Code, Column: r.Column}
		if mayRead || r.Status == accounts.RowCreated {
			answer.Rows[i].UserID = r.UserID
		}
	}
	return answer
}
