package rows

import (
	"fmt"
	"net/url"
)

// CloudEvents 1.0. Its AMQP binding is made for AMQP 1.0; here an attribute is a header of the
// same name as the application property there, cloudEvents_ and the attribute's, which
// clients of JMS can select by, too.

// attribute is a context attribute and its value.
type attribute struct{ name, value string }

// attributes of a change. sequence is that extension: events of one source are in the order
// of these texts.
func (c *change) attributes(id string, from Origin) []attribute {
	m := c.message
	position := m.Position()
	return []attribute{
		{"specversion", "1.0"},
		{"id", id},
		{"source", "/pgamqp/" + url.PathEscape(from.Name) + "/" + url.PathEscape(from.Database)},
		{"type", "pgamqp.row." + c.operation},
		{"subject", c.relation.Schema + "." + c.relation.Name},
		{"time", string(c.appendCommitTime(nil))},
		{"sequence", fmt.Sprintf("%016X-%010d", uint64(position.Unit), m.Change.Ordinal)},
	}
}

// appendHeaders writes attributes as the headers of a binary event.
func appendHeaders(dst []byte, attributes []attribute) []byte {
	separator := byte('{')
	for _, a := range attributes {
		dst = append(dst, separator)
		separator = ','
		dst = append(appendString(dst, []byte("cloudEvents_"+a.name)), ':')
		dst = appendString(dst, []byte(a.value))
	}
	return append(dst, '}')
}

// appendStructured writes attributes and data as one JSON object.
func (e Encoding) appendStructured(dst []byte, c *change, attributes []attribute) []byte {
	dst = append(dst, '{')
	for _, a := range attributes {
		dst = append(appendString(dst, []byte(a.name)), ':')
		dst = append(appendString(dst, []byte(a.value)), ',')
	}
	dst = append(dst, `"datacontenttype":"application/json","data":`...)
	return append(e.appendJSON(dst, c), '}')
}
