// Package decoder turns bytes from the replication stream into values. It owns
// nothing, opens nothing, logs nothing and knows no clock: equal bytes give equal
// values, and no input makes it panic.
//
// Two layers of bytes are read here.
//
// The stream itself, as in the PostgreSQL documentation, "Streaming Replication
// Protocol" and "Logical Replication Message Formats", protocol version 1 without
// streaming and without two-phase commit. All integers are big endian.
//
//	CopyData 'w'  start LSN 8 | end LSN 8 | server time 8 | one frame
//	CopyData 'k'  WAL end 8 | server time 8 | reply requested 1
//
//	frame 'B'     LSN of the commit record 8 | commit time 8 | xid 4
//	frame 'C'     flags 1 | LSN of the commit record 8 | end LSN 8 | commit time 8
//	frame 'M'     flags 1 (bit 0: transactional) | LSN 8 | prefix, NUL | length 4 | content
//	frame 'R'     OID 4 | schema, NUL | name, NUL | replica identity 1 | columns 2,
//	              each: flags 1 (bit 0: key) | name, NUL | type OID 4 | modifier 4
//	frame 'I'     OID 4 | 'N' | tuple
//	frame 'U'     OID 4 | 'K' or 'O' and the old tuple, or neither | 'N' | tuple
//	frame 'D'     OID 4 | 'K' or 'O' | old tuple
//	frame 'T'     tables 4 | options 1 (bit 0: cascade, bit 1: restart identity) | OIDs 4
//	tuple         columns 2, each: 'n' null, 'u' unchanged, 't' length 4 and text
//	Y O           types and origins: reported as Other, not read
//
// Frames of streamed or prepared transactions (S E c A, b P K r p) are errors:
// they are never asked for, and taking them for ordinary ones could publish what
// is rolled back later.
//
// And the envelope: the content of a message with prefix "amqp", written by the
// SQL functions of schema amqp.
//
//	byte 0        version: 1, or 2 with a signature (signature.go) behind the body
//	byte 1        kind, see the Kind constants
//	bytes 2-5     broker id
//	fields        each: tag 1 | length 3 | value in UTF-8; see the field tags
//	end           four zero bytes
//	body          the rest, raw bytes
package decoder
