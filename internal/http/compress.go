package httpapi

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	// minCompressed is what fits into one packet anyway.
	minCompressed = 1400
	// compressionLevel takes half the time of the default and leaves a few percent more.
	compressionLevel = 4
)

var compressors = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, compressionLevel)
	if err != nil {
		panic(err) // a constant
	}
	return w
}}

// compressed returns the body as gzip.
func compressed(body []byte) []byte {
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	_, _ = w.Write(body) // a buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3).
func acceptsGzip(r *http.Request) bool {
	any := false
	for item := range strings.SplitSeq(strings.Join(r.Header["Accept-Encoding"], ","), ",") {
		coding, parameter, _ := strings.Cut(item, ";")
		wanted := true
		if text, ok := strings.CutPrefix(strings.TrimSpace(parameter), "q="); ok {
			q, err := strconv.ParseFloat(text, 64)
			wanted = err == nil && q > 0
		}
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			return wanted
		case "*":
			any = wanted
		}
	}
	return any
}
