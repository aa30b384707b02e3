package decoder

import "encoding/binary"

// AppendHead appends everything of an envelope but its body, as the SQL functions write it.
// What follows is the body. No field may be longer than 16 MiB.
func (e *Envelope) AppendHead(dst []byte) []byte {
	dst = append(dst, envelopeVersion, byte(e.Kind))
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.BrokerID))
	for _, tag := range []byte("xkqmtnychipewaufsro") {
		if value := *e.field(tag); value != "" {
			dst = binary.BigEndian.AppendUint32(dst, uint32(tag)<<24|uint32(len(value)&maxFieldLen))
			dst = append(dst, value...)
		}
	}
	return binary.BigEndian.AppendUint32(dst, 0)
}
