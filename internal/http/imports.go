package httpapi

import (
	"context"
	"encoding/csv"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

// Import is an upload that is worked through in the background.
type Import struct {
	ID         uuid.UUID  `json:"id"`
	Phase      string     `json:"phase" enum:"staging,pending,running,done,failed"`
	Total      int        `json:"total" example:"100000" doc:"Rows of the file."`
	Done       int        `json:"done" example:"42000" doc:"Rows that had their turn; the counts add up to it."`
	Percent    int        `json:"percent" example:"42"`
	Counts     Counts     `json:"counts"`
	ErrorCode  string     `json:"error_code,omitempty" example:"IDENTIFIER_TAKEN" doc:"Why the phase is failed; then nothing was written."`
	CreatedAt  time.Time  `json:"created_at"`
	FinishedAt *time.Time `json:"finished_at"`
}

// csvText is the body of a CSV file.
type csvText string

// Schema implements huma.SchemaProvider.
func (csvText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{
		"phone,user_groups,result,code,user_id\n+79991234567,client,created,," + exampleID + "\n",
	}}
}

func (a *API) addImports() {
	a.add(route{
		method: http.MethodGet, path: "/accounts/imports/{id}", id: "get-import", tag: tagImports,
		summary: "How far an upload is", access: writeAccess,
		params: []*huma.Param{idParam},
		status: http.StatusOK, result: reflect.TypeFor[Import](),
		errors: []errcode.Code{errcode.NotFound}, handle: a.getImport,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/imports/{id}/result", id: "get-import-result", tag: tagImports,
		summary: "The rows of an upload and what became of each, as CSV", access: writeAccess, slow: true,
		description: "At any time: a row whose turn has not come has an empty result. A text that a spreadsheet program " +
			"would take for a formula begins with an apostrophe. Kept for 30 days. A token without the scope " +
			auth.ScopeRead + " gets user_id for created users only.",
		params: []*huma.Param{idParam},
		status: http.StatusOK, result: reflect.TypeFor[csvText](), mediaType: "text/csv", headers: []string{"Content-Disposition"},
		errors: []errcode.Code{errcode.NotFound}, handle: a.getImportResult,
	})
}

func (a *API) getImport(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	if err := in.err(); err != nil {
		return err
	}
	job, err := a.accounts.Import(ctx, id)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, newImport(job))
}

func (a *API) getImportResult(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	if err := in.err(); err != nil {
		return err
	}
	if _, err := a.accounts.Import(ctx, id); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="import-`+id.String()+`.csv"`)
	file := csv.NewWriter(w) // it keeps the first error of w until Flush
	_ = file.Write([]string{"phone", "user_groups", "result", "code", "user_id"})
	err := a.accounts.ImportRows(ctx, id, func(row accounts.ImportRow) error {
		userID := ""
		if row.UserID != nil && (w.mayRead() || row.Status == accounts.RowCreated) {
			userID = row.UserID.String()
		}
		return file.Write([]string{harmlessCell(row.Phone), harmlessCell(row.Groups), row.Status, row.Code, userID})
	})
	if err != nil {
		if w.status == 0 {
			w.Header().Del("Content-Disposition")
		}
		return err
	}
	file.Flush()
	return nil // a client that left is nobody to tell
}

// harmlessCell keeps a spreadsheet program from running a text as a formula (CWE-1236). A plus before
// digits is left alone: it is how phones begin, and digits call nothing.
func harmlessCell(text string) string {
	const starts = "=+-@\t\r"
	if text == "" || !strings.Contains(starts, text[:1]) {
		return text
	}
	if strings.ContainsAny(text[:1], "+-") && strings.Trim(text[1:], "0123456789 ().-") == "" {
		return text
	}
	return "'" + text
}

func newImport(job accounts.ImportJob) Import {
	answer := Import{
		ID: job.ID, Phase: job.Phase, Total: job.Total, Done: job.Done, Counts: Counts(job.Counts),
		ErrorCode: job.ErrorCode, CreatedAt: job.CreatedAt.UTC(),
	}
	switch {
	case job.Total > 0:
		answer.Percent = job.Done * 100 / job.Total
	case job.Finished():
		answer.Percent = 100
	}
	if job.FinishedAt != nil {
		answer.FinishedAt = new(job.FinishedAt.UTC())
	}
	return answer
}
