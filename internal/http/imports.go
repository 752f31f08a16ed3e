package httpapi

import (
	"bufio"
	"context"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/auth"
	"github.com/payment-services/accounts/internal/errcode"
)

// Import is an upload that is processed in chunks.
type Import struct {
	ID           uuid.UUID  `json:"id"`
	Phase        string     `json:"phase" enum:"staging,pending,running,done,failed,cancelled"`
	Total        int        `json:"total" example:"100000" doc:"Rows of the file."`
	Done         int        `json:"done" example:"42000" doc:"Rows with a result; the counts add up to it."`
	Percent      int        `json:"percent" example:"42"`
	Counts       Counts     `json:"counts"`
	ErrorCode    string     `json:"error_code,omitempty" example:"IDENTIFIER_TAKEN" doc:"Why the phase is failed. With IDENTIFIER_TAKEN nothing was written; otherwise the rows with a result were."`
	ErrorMessage string     `json:"error_message,omitempty" doc:"The same for people."`
	CreatedAt    time.Time  `json:"created_at"`
	FinishedAt   *time.Time `json:"finished_at"`
}

// csvText is the body of a CSV file.
type csvText string

// Schema implements huma.SchemaProvider.
func (csvText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{
		"\"row\",\"phone\",\"user_groups\",\"result\",\"code\",\"column\",\"user_id\"\n" +
			"\"2\",\"+79991234567\",\"client\",\"created\",\"\",\"\",\"" + exampleID + "\"\n",
	}}
}

// separatorParam: a spreadsheet program expects the separator of its language.
var separatorParam = queryChoice("sep",
	"Separator of the columns: a comma, a semicolon, or a tab.", ",", ",", ";", "tab")

// byteOrderMark tells spreadsheet programs that a CSV file is UTF-8.
const byteOrderMark = "\uFEFF"

func (a *API) addImports() {
	a.add(route{
		method: http.MethodGet, path: "/accounts/imports/{id}", id: "get-import", tag: tagImports,
		summary: "Progress of an import", access: writeAccess,
		description: "A finished import is kept for 30 days.",
		params:      []*huma.Param{idParam},
		status:      http.StatusOK, result: reflect.TypeFor[Import](),
		errors: []errcode.Code{errcode.NotFound}, handle: a.getImport,
	})
	a.add(route{
		method: http.MethodDelete, path: "/accounts/imports/{id}", id: "cancel-import", tag: tagImports,
		summary: "Cancel an import", access: writeAccess,
		description: "No more rows are written; rows that were written stay, and the import and its result can still be " +
			"fetched. An import that has finished is left as it is, and the answer is 204 too.",
		params: []*huma.Param{idParam},
		status: http.StatusNoContent,
		errors: []errcode.Code{errcode.NotFound, errcode.OutcomeUnknown}, handle: a.cancelImport,
	})
	a.add(route{
		method: http.MethodGet, path: "/accounts/imports/{id}/result", id: "get-import-result", tag: tagImports,
		summary: "The rows of an import and their results, as CSV", access: writeAccess, slow: true,
		description: "At any time: a row that was not processed has an empty result. UTF-8 with a byte order mark; every text " +
			"is quoted. An apostrophe stands before each part of a text that a spreadsheet program would take for a formula. " +
			"The file can be uploaded again as it is: its other columns are then ignored, and these apostrophes are removed. " +
			"Kept for 30 days. A token without the scope " + auth.ScopeRead + " gets user_id for created users only.",
		params: []*huma.Param{idParam, separatorParam},
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

func (a *API) cancelImport(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	if err := in.err(); err != nil {
		return err
	}
	if _, err := a.accounts.CancelImport(ctx, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) getImportResult(ctx context.Context, w *response, in *input) error {
	id := in.uuid(idParam)
	separator := in.separator()
	if err := in.err(); err != nil {
		return err
	}
	if _, err := a.accounts.Import(ctx, id); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="import-`+id.String()+`.csv"`)
	file := bufio.NewWriter(w) // it keeps the first error of w until Flush
	_, _ = file.WriteString(byteOrderMark)
	writeRecord(file, separator, accounts.ColumnRow, accounts.ColumnPhone, accounts.ColumnGroups,
		accounts.ColumnResult, accounts.ColumnCode, accounts.ColumnColumn, accounts.ColumnUserID)
	err := a.accounts.ImportRows(ctx, id, func(row accounts.ImportRow) error {
		userID := ""
		if row.UserID != nil && (w.mayRead() || row.Status == accounts.RowCreated) {
			userID = row.UserID.String()
		}
		return writeRecord(file, separator, strconv.Itoa(row.Number), accounts.HarmlessCell(row.Phone),
			accounts.HarmlessCell(strings.Join(row.Groups, ",")), row.Status, row.Code, row.Column, userID)
	})
	if err != nil {
		if w.status == 0 {
			w.Header().Del("Content-Disposition")
		}
		return err
	}
	_ = file.Flush() // it fails when the client has closed the connection
	return nil
}

// separator returns the separator of a CSV file. A tab may also stand as itself, encoded as %09.
func (in *input) separator() string {
	switch text, ok := in.text(separatorParam); {
	case !ok:
		return separatorParam.Schema.Default.(string)
	case text == "," || text == ";":
		return text
	case text == "tab" || text == "\t":
		return "\t"
	}
	in.wrong(separatorParam.Name, "unknown", "must be a comma, a semicolon or tab")
	return ""
}

// writeRecord writes one line of a CSV file with every text quoted: package encoding/csv would quote
// only some.
func writeRecord(w *bufio.Writer, separator string, texts ...string) error {
	for i, text := range texts {
		if i > 0 {
			_, _ = w.WriteString(separator)
		}
		_ = w.WriteByte('"')
		_, _ = w.WriteString(strings.ReplaceAll(text, `"`, `""`))
		_ = w.WriteByte('"')
	}
	return w.WriteByte('\n')
}

func newImport(job accounts.ImportJob) Import {
	answer := Import{
		ID: job.ID, Phase: job.Phase, Total: job.Total, Done: job.Done, Counts: Counts(job.Counts),
		ErrorCode: job.ErrorCode, ErrorMessage: job.ErrorMessage, CreatedAt: job.CreatedAt.UTC(),
	}
	switch {
	case job.Total > 0:
		answer.Percent = job.Done * 100 / job.Total
	case job.Finished(): // a file without rows
		answer.Percent = 100
	}
	if job.FinishedAt != nil {
		answer.FinishedAt = new(job.FinishedAt.UTC())
	}
	return answer
}
