package httpapi

import (
	"embed"
	"io/fs"
	"net/http"
	"path"

	"github.com/swaggest/swgui/v5/static"

	"github.com/payment-services/accounts/internal/errcode"
)

// docsPolicy lets the page load nothing from elsewhere, and no script that stands in a page. Swagger UI
// sets style attributes and has its icons in data URLs.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed docs
var docsPage embed.FS

// docsTypes are the files of the page and what they are.
var docsTypes = map[string]string{
	"index.html":           "text/html; charset=utf-8",
	"start.js":             "text/javascript; charset=utf-8",
	"swagger-ui-bundle.js": "text/javascript; charset=utf-8",
	"swagger-ui.css":       "text/css; charset=utf-8",
	"favicon-32x32.png":    "image/png",
}

// addDocs serves a page that shows the document and tries it out. It is no part of the document.
func (a *API) addDocs() {
	for _, pattern := range []string{"/docs", "/docs/{file}"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a.router.MethodFunc(method, pattern, a.getDocs)
		}
	}
}

func (a *API) getDocs(writer http.ResponseWriter, r *http.Request) {
	w := writer.(*response)
	w.route = "/docs"
	name := r.PathValue("file")
	if name == "" {
		name = "index.html"
	}
	contentType, ok := docsTypes[name]
	if !ok {
		w.problem(r, errcode.Missing("Route", ""))
		return
	}
	h := w.Header()
	content, err := docsPage.ReadFile(path.Join("docs", name))
	if err != nil {
		if content, err = fs.ReadFile(static.FS, name); err != nil {
			// The large ones are stored for browsers, all of which take this coding.
			content, err = fs.ReadFile(static.FS, name+".gz")
			h.Set("Content-Encoding", "gzip")
		}
	}
	if err != nil {
		h.Del("Content-Encoding")
		w.problem(r, err)
		return
	}
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", docsPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	w.send(http.StatusOK, content)
}
