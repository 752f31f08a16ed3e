package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/payment-services/accounts/internal/accounts"
	"github.com/payment-services/accounts/internal/errcode"
)

const (
	// filePart is the part of an upload that is the file.
	filePart = "file"
	// maxPartHeaders is how many bytes an upload may have beside the file.
	maxPartHeaders = 64 << 10
)

// The limits of an upload that the configuration does not set.
const defaultMaxUploadBytes = 10 << 20

var defaultUploadExtensions = []string{"csv", "xlsx", "xls"}

var preferParam = &huma.Param{
	Name: "Prefer", In: "header", Schema: &huma.Schema{Type: huma.TypeString, Examples: []any{"respond-async"}},
	Description: "respond-async: do not wait for the import, however small it is.",
}

// uploadBody documents the body of an upload. It is not held in memory.
var uploadBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
	"multipart/form-data": {Schema: &huma.Schema{
		Type: huma.TypeObject, Required: []string{filePart}, AdditionalProperties: false,
		Properties: map[string]*huma.Schema{filePart: {
			Type: huma.TypeString, Format: "binary",
			Description: "CSV, XLSX or XLS with the columns phone and user_groups (\"client,driver\"), or the result file of an import.",
		}},
	}},
}}

func (a *API) addUploads() {
	a.add(route{
		method: http.MethodPost, path: "/accounts/users/bulk/upload", id: "upload-users", tag: tagUsers,
		summary: "Create users from a CSV, XLSX or XLS file", access: writeAccess,
		description: "The columns are phone and user_groups; a row may name up to 100 groups, in at most 255 characters. Invalid " +
			"rows do not affect other rows; a file that cannot be read to its end changes nothing. The same file again creates nothing twice. Every " +
			"file is processed as an import. The answer is 200 with the rows if the import of up to 5000 rows is done within " +
			"20 seconds, and otherwise, or with Prefer: respond-async, 202 with the import, which goes on. With " +
			"on_conflict=error, up to 5000 rows are written all or not at all; of a larger file, a phone that is taken after " +
			"the file was checked is left as it is. Only some uploads run at once: others get 503, or 429 if the token has " +
			"too many uploads or unfinished imports.",
		params: []*huma.Param{onConflictParam, dryRunParam, preferParam},
		upload: true, slow: true,
		status: http.StatusOK, result: reflect.TypeFor[BulkResult](), accepted: reflect.TypeFor[Import](),
		errors: []errcode.Code{errcode.FileUpload, errcode.IdentifierTaken, errcode.OutcomeUnknown, errcode.Overloaded}, handle: a.uploadUsers,
	})
}

func (a *API) uploadUsers(ctx context.Context, w *response, in *input) error {
	options := accounts.UploadOptions{
		BulkOptions: in.bulkOptions(), Async: in.prefersAsync(), Owner: w.principal.Subject,
	}
	file, release, err := in.readUpload()
	defer release()
	if file != nil {
		defer file.Close() // it has no name any more, so that this deletes it
	}
	if err != nil {
		in.fatal = err
	}
	if err := in.err(); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("measure an upload: %w", err)
	}
	result, job, err := a.accounts.Upload(ctx, file, info.Size(), options)
	if err != nil {
		return err
	}
	if job == nil {
		return w.json(http.StatusOK, newBulkResult(*result, w.mayRead()))
	}
	w.Header().Set("Location", "/accounts/imports/"+job.ID.String())
	if options.Async {
		w.Header().Set("Preference-Applied", "respond-async")
	}
	return w.json(http.StatusAccepted, newImport(*job))
}

// prefersAsync reads Prefer (RFC 7240).
func (in *input) prefersAsync() bool {
	for preference := range strings.SplitSeq(strings.Join(in.r.Header["Prefer"], ","), ",") {
		token, _, _ := strings.Cut(preference, ";")
		if strings.EqualFold(strings.TrimSpace(token), "respond-async") {
			return true
		}
	}
	return false
}

// readUpload returns the one file of the body, on disk and without a name, and a function that releases
// its slot. The file is to be closed and the slot to be released also if there is an error. Errors of
// the form are noted, and the rest of the body is read: a client that is still sending would not see
// the answer.
func (in *input) readUpload() (file *os.File, release func(), err error) {
	release = func() {}
	form, err := in.openForm()
	if err != nil {
		return nil, release, err
	}
	size := in.api.maxUploadBytes
	if length := in.r.ContentLength; length >= 0 {
		size = min(size, length)
	}
	taken, err := in.api.uploads.take(in.w.principal.Subject, size)
	if err != nil {
		in.w.Header().Set("Connection", "close")
		return nil, release, err
	}
	release = taken
	if file, err = newTemporaryFile(); err != nil {
		in.w.Header().Set("Connection", "close")
		return nil, release, err
	}
	return file, release, in.readForm(form, file)
}

// readForm copies the file of a form to disk.
func (in *input) readForm(form *multipart.Reader, file *os.File) error {
	given := false
	for {
		part, err := form.NextPart()
		if err == io.EOF { // compared as it is: an error that wraps EOF is a body without an end
			break
		}
		if err != nil {
			return in.brokenForm(err)
		}
		switch {
		case part.FormName() != filePart:
			in.wrong(shownName(part.FormName()), "unknown", "the form has one part, named "+filePart)
			_, err = io.Copy(io.Discard, part)
		case given:
			in.wrong(filePart, "repeated", "may be given once")
			_, err = io.Copy(io.Discard, part)
		default:
			given = true
			in.checkExtension(part.FileName())
			err = in.store(part, file)
		}
		if err != nil {
			return in.brokenForm(err)
		}
	}
	if err := in.endBody(); err != nil {
		return err
	}
	if !given {
		in.wrong(filePart, "required", "the form must have a part named "+filePart+" with a file name")
	}
	return nil
}

func (in *input) openForm() (*multipart.Reader, error) {
	mediaType, params, err := mime.ParseMediaType(in.r.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/form-data" || params["boundary"] == "" {
		return nil, errcode.New(errcode.UnsupportedMediaType, "Content-Type must be multipart/form-data with a boundary")
	}
	if err := in.checkContentEncoding(); err != nil {
		return nil, err
	}
	limit := in.api.maxUploadBytes + maxPartHeaders
	if in.r.ContentLength > limit {
		return nil, in.uploadTooLarge()
	}
	return multipart.NewReader(http.MaxBytesReader(in.w.ResponseWriter, in.r.Body, limit), params["boundary"]), nil
}

// store copies the part to the file, up to one byte more than it may have.
func (in *input) store(part *multipart.Part, file *os.File) error {
	disk := &diskWriter{file: file}
	n, err := io.Copy(disk, io.LimitReader(part, in.api.maxUploadBytes+1))
	switch {
	case disk.err != nil:
		return disk.err
	case err != nil:
		return err
	case n > in.api.maxUploadBytes:
		return in.uploadTooLarge()
	}
	return nil
}

func (in *input) uploadTooLarge() error {
	return errcode.New(errcode.PayloadTooLarge, fmt.Sprintf("the file is larger than %d bytes", in.api.maxUploadBytes))
}

func (in *input) checkExtension(name string) {
	allowed := in.api.uploadExtensions
	extension := strings.ToLower(strings.TrimPrefix(filepath.Ext(name), "."))
	if slices.Contains(allowed, extension) || in.fatal != nil {
		return
	}
	in.fatal = &errcode.Error{
		Code: errcode.FileUpload, Message: "the file cannot be imported: its name has no known extension",
		Fields: []errcode.Field{{
			Field: filePart, Code: "unknown_extension", Message: "the name must end with one of " + strings.Join(allowed, ", "),
		}},
	}
}

// brokenForm returns the coded error of a form that could not be read or stored.
func (in *input) brokenForm(err error) error {
	if errors.Is(err, errDisk) {
		in.w.Header().Set("Connection", "close")
		return err
	}
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		err = in.uploadTooLarge()
	case errcode.Of(err) == errcode.Internal && !errors.Is(err, os.ErrDeadlineExceeded):
		// A body that ends early looks the same as one that was cut off.
		err = invalidBody("invalid_multipart", "must be multipart/form-data, to its closing boundary")
	}
	return in.unreadable(err)
}

// errDisk marks an error of the disk, of which the client is told no more than that.
var errDisk = errors.New("store an upload")

// diskError is the error of an upload that cannot be stored, such as on a full disk. The log has the cause.
func diskError(cause error) error {
	return &errcode.Error{
		Code: errcode.Overloaded, RetryAfter: uploadRetryAfter, Cause: fmt.Errorf("%w: %w", errDisk, cause),
		Message: "the service cannot store the file at the moment; nothing was changed, try again later",
	}
}

// newTemporaryFile returns a file without a name: closing it, or the end of the process, deletes it.
func newTemporaryFile() (*os.File, error) {
	file, err := os.CreateTemp("", "accounts-upload-*")
	if err != nil {
		return nil, diskError(err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, diskError(errors.Join(err, file.Close()))
	}
	return file, nil
}

// diskWriter remembers an error of the disk: io.Copy returns errors of the body and of the disk alike.
type diskWriter struct {
	file *os.File
	err  error
}

// Write implements io.Writer.
func (d *diskWriter) Write(p []byte) (int, error) {
	n, err := d.file.Write(p)
	if err != nil {
		d.err = diskError(err)
	}
	return n, err
}
