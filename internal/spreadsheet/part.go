package spreadsheet

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
)

const (
	// maxTokenBytes is the longest text that Excel keeps in a cell, 32,767 letters of three bytes.
	// encoding/xml holds one token in memory, however long, and 50 bytes for each attribute.
	maxTokenBytes = 3 * 32_767
	// maxDepth of elements; a worksheet has 10.
	maxDepth = 64
	// checkEvery is how many steps a loop takes between two looks at ctx: about a millisecond.
	checkEvery = 4096
)

// part is an XML part of a package while it is read, token by token. It asks encoding/xml for raw
// tokens, because the checked ones cost memory in the depth of the document; the check that end tags
// match is made here.
type part struct {
	stream  io.ReadCloser
	buffer  []byte
	rest    []byte // of buffer
	token   int    // bytes of the current token
	tokens  int
	decoder *xml.Decoder
	open    []string
}

func newPart(stream io.ReadCloser) *part {
	p := &part{stream: stream, buffer: make([]byte, 32<<10)}
	p.decoder = xml.NewDecoder(p)
	return p
}

// next returns the next token, valid until the following call, and io.EOF after a complete document.
func (p *part) next(ctx context.Context) (xml.Token, error) {
	if p.tokens++; p.tokens%checkEvery == 0 && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	p.token = 0
	token, err := p.decoder.RawToken()
	if err != nil {
		if err == io.EOF && len(p.open) > 0 {
			return nil, broken()
		}
		return nil, err
	}
	switch t := token.(type) {
	case xml.StartElement:
		if len(p.open) == maxDepth {
			return nil, broken()
		}
		p.open = append(p.open, t.Name.Local)
	case xml.EndElement:
		last := len(p.open) - 1
		if last < 0 || p.open[last] != t.Name.Local {
			return nil, broken()
		}
		p.open = p.open[:last]
	}
	return token, nil
}

// drain reads the part to its end, where its checksum is, without parsing it.
func (p *part) drain(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.fill(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// close releases the decompressor. Its error is that of the last read, which was reported then.
func (p *part) close() { _ = p.stream.Close() }

// ReadByte implements io.ByteReader: with it encoding/xml reads no further than the token.
func (p *part) ReadByte() (byte, error) {
	if len(p.rest) == 0 {
		if err := p.fill(); err != nil {
			return 0, err
		}
	}
	if p.token++; p.token > maxTokenBytes {
		return 0, broken()
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b, nil
}

// Read makes part an io.Reader, which xml.NewDecoder asks for. It is never called.
func (p *part) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// fill replaces what is left of the buffer by the next bytes, at least one.
func (p *part) fill() error {
	for {
		n, err := p.stream.Read(p.buffer)
		p.rest = p.buffer[:n]
		if n > 0 && (err == nil || err == io.EOF) { // the next call returns io.EOF again
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// attribute returns the value of an attribute without a prefix, "" if there is none.
func attribute(element xml.StartElement, name string) string {
	for _, a := range element.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
