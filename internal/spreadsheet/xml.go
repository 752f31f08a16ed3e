package spreadsheet

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

const (
	// windowBytes is the buffer of a part, and the longest tag: a start tag with all its attributes.
	windowBytes = 64 << 10
	// maxDepth is the number of open elements; a worksheet has 10.
	maxDepth = 64
	// maxAttributes of one element; the root of a worksheet has 10 to 40.
	maxAttributes = 128
	// minFill is how many bytes a refill of the window reads, except at the end of the part.
	minFill = 4 << 10
	// longestReference is the length of the longest valid character reference, &#x0010FFFF; with zeros.
	longestReference = 16
)

// tokenKind is the kind of the token that part.next found.
type tokenKind uint8

const (
	startTag tokenKind = iota
	endTag             // also after a start tag that ends in "/>"
	charData           // a piece of text; a text may come in several pieces
)

// part reads one XML part of a package, token by token, in constant memory and linear time. It checks
// that the elements are nested correctly, and refuses document types, so that no entity expands.
//
// encoding/xml is not used: it allocates for every token, reads 10 to 20 MB a second, and keeps a token of
// any length in memory. A worksheet of a few hundred kilobytes can unpack to 64 MB.
type part struct {
	file    *source
	stream  io.ReadCloser // the part as it is stored
	decoded io.Reader     // stream as UTF-8
	window  []byte
	rest    []byte // what is left of the window
	ended   bool   // decoded has returned io.EOF

	name       []byte // local name of the current tag, valid until the following token
	attributes []attribute
	data       []byte // current charData
	literal    bool   // data is from a CDATA section: it has no references
	empty      bool   // the current start tag ends in "/>"
	inCDATA    bool
	carriage   bool // the text so far ends in a carriage return

	names []byte // qualified names of the open elements, one after the other
	ends  []int  // where each ends
	root  bool   // the root element was seen
}

// attribute is one attribute of a start tag. Both slices are valid until the following token.
type attribute struct{ name, value []byte }

// newPart takes over stream, which close closes.
func newPart(file *source, stream io.ReadCloser) (*part, error) {
	p := &part{file: file, stream: stream, decoded: stream, window: make([]byte, windowBytes)}
	if err := p.decode(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// decode finds the encoding of the part as XML 1.0, appendix F, describes.
func (p *part) decode() error {
	head := make([]byte, 0, 256)
	for len(head) < cap(head) && !p.ended {
		n, err := p.stream.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err == io.EOF {
			p.ended = true
		} else if err != nil {
			return err
		}
	}
	p.ended = false // decoded still has head
	var from encoding.Encoding
	var err error
	switch {
	case bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")):
		head = head[3:]
	case bytes.HasPrefix(head, []byte("\xFE\xFF")), bytes.HasPrefix(head, []byte("\xFF\xFE")):
		from = unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM)
	case bytes.HasPrefix(head, []byte("\x00<\x00")):
		from = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	case bytes.HasPrefix(head, []byte("<\x00")):
		from = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM)
	default:
		if from, err = declaredEncoding(head); err != nil {
			return err
		}
	}
	p.decoded = io.MultiReader(bytes.NewReader(head), p.stream)
	if from != nil {
		p.decoded = transform.NewReader(p.decoded, from.NewDecoder())
	}
	return nil
}

// declaredEncoding returns the encoding of the XML declaration, nil for UTF-8.
func declaredEncoding(head []byte) (encoding.Encoding, error) {
	declaration, _, found := bytes.Cut(head, []byte("?>"))
	if !found || !bytes.HasPrefix(declaration, []byte("<?xml")) {
		return nil, nil
	}
	_, value, found := bytes.Cut(declaration, []byte("encoding"))
	value = bytes.TrimLeft(value, " \t\r\n=")
	if !found || len(value) == 0 {
		return nil, nil
	}
	name, _, _ := bytes.Cut(value[1:], value[:1])
	label := strings.ToLower(strings.TrimSpace(string(name)))
	if strings.HasPrefix(label, "utf-16") || strings.HasPrefix(label, "utf16") || label == "us-ascii" {
		return nil, nil // the declaration was read as ASCII, so the part is not UTF-16
	}
	from, err := htmlindex.Get(label)
	if err != nil || from == encoding.Replacement {
		return nil, &Error{Code: BadEncoding, Message: "the workbook has text in an unknown encoding; save it again and retry"}
	}
	if from == unicode.UTF8 {
		return nil, nil
	}
	return from, nil
}

// next moves to the next token. It returns io.EOF after a complete document.
func (p *part) next(ctx context.Context) (tokenKind, error) {
	kind, err := p.token(ctx)
	if kind != charData {
		p.carriage = false
	}
	return kind, err
}

func (p *part) token(ctx context.Context) (tokenKind, error) {
	if p.empty {
		p.empty = false
		p.pop()
		return endTag, nil
	}
	for {
		if p.inCDATA {
			found, err := p.cdata(ctx)
			if err != nil || found {
				return charData, err
			}
		}
		if len(p.rest) == 0 {
			err := p.fill(ctx)
			if err == io.EOF && (len(p.ends) > 0 || !p.root) {
				return 0, broken()
			}
			if err != nil {
				return 0, err
			}
		}
		if p.rest[0] != '<' {
			if err := p.text(ctx); err != nil {
				return 0, err
			}
			if len(p.ends) > 0 {
				return charData, nil
			}
			if len(bytes.Trim(p.data, " \t\r\n")) > 0 { // outside the root element
				return 0, broken()
			}
			continue
		}
		if err := p.atLeast(ctx, 2); err != nil {
			return 0, err
		}
		switch p.rest[1] {
		case '/':
			return endTag, p.endTag(ctx)
		case '?':
			if err := p.discard(ctx, "?>"); err != nil {
				return 0, err
			}
		case '!':
			if err := p.declaration(ctx); err != nil {
				return 0, err
			}
		default:
			return startTag, p.startTag(ctx)
		}
	}
}

// depth is the number of open elements.
func (p *part) depth() int { return len(p.ends) }

// is reports whether the current tag has this local name.
func (p *part) is(name string) bool { return string(p.name) == name }

// attribute returns the value of an attribute without a prefix, nil if there is none.
func (p *part) attribute(name string) []byte {
	for _, a := range p.attributes {
		if string(a.name) == name {
			return a.value
		}
	}
	return nil
}

// skip moves to the end of the element whose start tag is the current token.
func (p *part) skip(ctx context.Context) error {
	for depth := p.depth(); p.depth() >= depth; {
		if _, err := p.next(ctx); err != nil {
			return unexpectedEnd(err)
		}
	}
	return nil
}

// skipWithout is skip of an element that must neither have nor hold one of the names. An extLst is passed
// over whatever it holds: it extends an element that was read.
func (p *part) skipWithout(ctx context.Context, names ...string) error {
	refused := func() bool { return slices.ContainsFunc(names, p.is) }
	extension := p.is("extLst")
	for depth := p.depth(); p.depth() >= depth; {
		if refused() && !extension {
			return broken()
		}
		if _, err := p.next(ctx); err != nil {
			return unexpectedEnd(err)
		}
	}
	return nil
}

// drain reads the part to its end, where its checksum is, without parsing it.
func (p *part) drain(ctx context.Context) error {
	for {
		p.rest = nil
		if err := p.fill(ctx); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// close releases the decompressor. Its error is that of the last read, which was reported then.
func (p *part) close() { _ = p.stream.Close() }

// fill reads more of the part behind what is left of the window, at least one byte.
func (p *part) fill(ctx context.Context) error {
	if err := p.file.check(ctx); err != nil {
		return err
	}
	if len(p.rest) == len(p.window) { // one tag fills the window
		return broken()
	}
	kept := copy(p.window, p.rest)
	end := kept
	for !p.ended && end < len(p.window) && end-kept < minFill {
		n, err := p.decoded.Read(p.window[end:])
		end += n
		if err == io.EOF { // io.ErrUnexpectedEOF is that of a part that is cut off
			p.ended = true
		} else if err != nil {
			return err
		}
	}
	p.rest = p.window[:end]
	if end == kept {
		return io.EOF
	}
	return nil
}

// atLeast makes sure that the window has n more bytes.
func (p *part) atLeast(ctx context.Context, n int) error {
	for len(p.rest) < n {
		if err := p.fill(ctx); err != nil {
			return unexpectedEnd(err)
		}
	}
	return nil
}

// text takes the text up to the next tag, or a piece of it that does not end within a reference.
func (p *part) text(ctx context.Context) error {
	end := bytes.IndexByte(p.rest, '<')
	for end < 0 && len(p.rest) < 4*longestReference {
		if err := p.fill(ctx); err == io.EOF {
			end = len(p.rest)
		} else if err != nil {
			return err
		} else {
			end = bytes.IndexByte(p.rest, '<')
		}
	}
	if end < 0 {
		end = len(p.rest)
		tail := p.rest[end-longestReference:]
		if i := bytes.LastIndexByte(tail, '&'); i >= 0 && bytes.IndexByte(tail[i:], ';') < 0 {
			end += i - len(tail)
		}
	}
	p.data, p.rest, p.literal = p.rest[:end], p.rest[end:], false
	return nil
}

// cdata takes a piece of a CDATA section. It returns false at the end of the section.
func (p *part) cdata(ctx context.Context) (bool, error) {
	if err := p.atLeast(ctx, len("]]>")); err != nil {
		return false, err
	}
	end := bytes.Index(p.rest, []byte("]]>"))
	switch {
	case end == 0:
		p.rest, p.inCDATA = p.rest[len("]]>"):], false
		return false, nil
	case end < 0:
		end = len(p.rest) - len("]]")
	}
	p.data, p.rest, p.literal = p.rest[:end], p.rest[end:], true
	return true, nil
}

// declaration reads what begins with "<!": a comment or a CDATA section. A document type is refused.
func (p *part) declaration(ctx context.Context) error {
	const comment, section = "<!--", "<![CDATA["
	if err := p.atLeast(ctx, len(comment)); err != nil {
		return err
	}
	if bytes.HasPrefix(p.rest, []byte(comment)) {
		p.rest = p.rest[len(comment):]
		return p.discard(ctx, "-->")
	}
	if err := p.atLeast(ctx, len(section)); err != nil {
		return err
	}
	if !bytes.HasPrefix(p.rest, []byte(section)) || len(p.ends) == 0 {
		return broken()
	}
	p.rest, p.inCDATA = p.rest[len(section):], true
	return nil
}

// discard moves behind the next end.
func (p *part) discard(ctx context.Context, end string) error {
	for {
		if i := bytes.Index(p.rest, []byte(end)); i >= 0 {
			p.rest = p.rest[i+len(end):]
			return nil
		}
		if keep := len(end) - 1; len(p.rest) > keep {
			p.rest = p.rest[len(p.rest)-keep:]
		}
		if err := p.fill(ctx); err != nil {
			return unexpectedEnd(err)
		}
	}
}

// endTag reads an end tag, which must name the element that is open.
func (p *part) endTag(ctx context.Context) error {
	end := bytes.IndexByte(p.rest, '>')
	for end < 0 {
		if err := p.fill(ctx); err != nil {
			return unexpectedEnd(err)
		}
		end = bytes.IndexByte(p.rest, '>')
	}
	name := p.rest[len("</"):end]
	if len(name) > 0 && name[len(name)-1] <= ' ' {
		name = bytes.TrimRight(name, " \t\r\n")
	}
	if len(p.ends) == 0 || !bytes.Equal(name, p.names[p.start():]) {
		return broken()
	}
	p.rest = p.rest[end+1:]
	p.name = local(name)
	p.pop()
	return nil
}

// startTag reads a start tag.
func (p *part) startTag(ctx context.Context) error {
	tag, err := p.tag(ctx)
	if err != nil {
		return err
	}
	if p.empty = bytes.HasSuffix(tag, []byte("/")); p.empty {
		tag = tag[:len(tag)-1]
	}
	end := bytes.IndexAny(tag, " \t\r\n")
	if end < 0 {
		end = len(tag)
	}
	name := tag[:end]
	if len(name) == 0 || len(p.ends) == maxDepth || len(p.ends) == 0 && p.root {
		return broken()
	}
	p.root = true
	p.names = append(p.names, name...)
	p.ends = append(p.ends, len(p.names))
	p.name = local(name)
	return p.readAttributes(tag[end:])
}

// tag takes a start tag from the window and returns what is between '<' and '>'.
func (p *part) tag(ctx context.Context) ([]byte, error) {
	for at := 1; ; {
		for at < len(p.rest) {
			switch c := p.rest[at]; c {
			case '>':
				tag := p.rest[1:at]
				p.rest = p.rest[at+1:]
				return tag, nil
			case '<':
				return nil, broken()
			case '"', '\'':
				length := bytes.IndexByte(p.rest[at+1:], c)
				if length < 0 {
					goto more
				}
				at += length + 1
			}
			at++
		}
	more:
		if err := p.fill(ctx); err != nil {
			return nil, unexpectedEnd(err)
		}
	}
}

// readAttributes splits the attributes of a start tag and decodes their values in place.
func (p *part) readAttributes(text []byte) error {
	const space = " \t\r\n"
	p.attributes = p.attributes[:0]
	for text = bytes.TrimLeft(text, space); len(text) > 0; text = bytes.TrimLeft(text, space) {
		equals := bytes.IndexByte(text, '=')
		if equals < 0 || len(p.attributes) == maxAttributes {
			return broken()
		}
		name := bytes.TrimRight(text[:equals], space)
		text = bytes.TrimLeft(text[equals+1:], space)
		if len(name) == 0 || len(text) == 0 || text[0] != '"' && text[0] != '\'' {
			return broken()
		}
		end := bytes.IndexByte(text[1:], text[0])
		if end < 0 {
			return broken()
		}
		value := text[1 : 1+end]
		if bytes.IndexByte(value, '<') >= 0 {
			return broken()
		}
		if bytes.IndexByte(value, '&') >= 0 {
			var err error
			if value, err = appendReferences(value[:0], value); err != nil {
				return err
			}
		}
		for _, other := range p.attributes {
			if bytes.Equal(other.name, name) {
				return broken()
			}
		}
		p.attributes = append(p.attributes, attribute{name, value})
		text = text[2+end:]
	}
	return nil
}

// start is where the name of the innermost open element begins.
func (p *part) start() int {
	if len(p.ends) == 1 {
		return 0
	}
	return p.ends[len(p.ends)-2]
}

// pop closes the innermost open element.
func (p *part) pop() {
	start := p.start()
	p.names, p.ends = p.names[:start], p.ends[:len(p.ends)-1]
}

// appendText appends the current charData, with its references and line ends decoded. It may be called
// once for each token, and for all pieces of a text or none.
func (p *part) appendText(text []byte) ([]byte, error) {
	p.unifyLineEnds()
	if p.literal {
		return append(text, p.data...), nil
	}
	return appendReferences(text, p.data)
}

// unifyLineEnds makes a line feed of each line end in the current charData: XML 1.0, section 2.11.
func (p *part) unifyLineEnds() {
	if !p.carriage && bytes.IndexByte(p.data, '\r') < 0 {
		return
	}
	kept := p.data[:0]
	for _, b := range p.data {
		switch {
		case b == '\r':
			kept = append(kept, '\n')
		case b != '\n' || !p.carriage:
			kept = append(kept, b)
		}
		p.carriage = b == '\r'
	}
	p.data = kept
}

// appendReferences appends raw with its character references decoded. text may be raw[:0]: no
// reference is shorter than what it stands for.
func appendReferences(text, raw []byte) ([]byte, error) {
	for {
		at := bytes.IndexByte(raw, '&')
		if at < 0 {
			return append(text, raw...), nil
		}
		text = append(text, raw[:at]...)
		raw = raw[at+1:]
		end := bytes.IndexByte(raw[:min(len(raw), longestReference)], ';')
		if end < 0 {
			return nil, broken()
		}
		r, ok := reference(string(raw[:end]))
		if !ok {
			return nil, broken()
		}
		text = utf8.AppendRune(text, r)
		raw = raw[end+1:]
	}
}

// reference returns the character of a reference without its & and ;.
func reference(name string) (rune, bool) {
	switch name {
	case "amp":
		return '&', true
	case "lt":
		return '<', true
	case "gt":
		return '>', true
	case "quot":
		return '"', true
	case "apos":
		return '\'', true
	}
	number, ok := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(number, "x"); isHex {
		number, base = hex, 16
	}
	code, err := strconv.ParseUint(number, base, 32)
	if !ok || err != nil || !isXMLChar(rune(code)) || code > utf8.MaxRune {
		return 0, false
	}
	return rune(code), true
}

// isXMLChar reports whether XML 1.0 allows this character.
func isXMLChar(r rune) bool {
	return r >= ' ' && r < 0xD800 || r >= 0xE000 && r < 0xFFFE || r >= 0x10000 || r == '\t' || r == '\n' || r == '\r'
}

// local returns a name without its prefix.
func local(name []byte) []byte { return name[bytes.IndexByte(name, ':')+1:] }

func unexpectedEnd(err error) error {
	if err == io.EOF {
		return broken()
	}
	return err
}
