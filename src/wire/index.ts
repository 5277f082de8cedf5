/**
 * wire: every byte format of QEMU's migration, as pure codecs: bytes in, values out. No socket, no clock, no log, no promise,
 * no import of a node: module (Buffer, a global, is the one thing taken from Node).
 *
 * Reading a main stream: chunks -> StreamInput -> StreamParser -> StreamEvent one by one; pages go from the parser straight to a
 * RamSink. A return path: StreamInput -> ReturnPathDecoder. A channel of page records alone (preempt): RamDecoder. A multifd channel:
 * decodeMultifdInitial, then MultifdHeaderDecoder packet by packet.
 * Writing: `encode...` functions append an element to a Writer; `write...` functions put page records into a preallocated buffer.
 * Nothing that is read is trusted: whatever the bytes, the outcome is a value, STARVED (more bytes, please) or a WireError that says
 * where (stream, offset, path) and what was expected; lengths are bounded before memory is taken (limits.ts).
 *
 * wire knows no machine, no order of a migration beyond the grammar of its streams, and no settings.
 */
export * from './errors.ts';
export * from './handshake/frame.ts';
export * from './handshake/preempt-initial.ts';
export * from './limits.ts';
export * from './mapped-ram/bitmap.ts';
export * from './mapped-ram/header.ts';
export * from './mapped-ram/layout.ts';
export * from './multifd/index.ts';
export * from './ram/block-list.ts';
export * from './ram/decoder.ts';
export * from './ram/flags.ts';
export * from './ram/records.ts';
export * from './ram/sink.ts';
export * from './return-path/decoder.ts';
export * from './return-path/message.ts';
export type { MeasureDevice } from './stream/body/device.ts';
export {
  decodeVfioConfig,
  encodeVfioData,
  encodeVfioTag,
  isVfioSection,
  VFIO_TAG,
  type VfioElement,
} from './stream/body/vfio.ts';
export * from './stream/command.ts';
export type { PostcopyPhase } from './stream/command-order.ts';
export * from './stream/configuration.ts';
export * from './stream/description.ts';
export * from './stream/events.ts';
export * from './stream/header.ts';
export * from './stream/input.ts';
export * from './stream/parser.ts';
export * from './stream/section.ts';
export * as vfioUser from './vfio-user/index.ts';
export * from './vmstate/index.ts';
export * from './xbzrle/decode.ts';
export * from './xbzrle/encode.ts';
