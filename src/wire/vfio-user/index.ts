/**
 * wire/vfio-user: messages between a virtual machine monitor (client) and a device server (server). Integers are little endian.
 *
 * Reading: StreamInput -> decodeMessage -> decodeRequest or decodeReply. Writing: encodeRequest, encodeReply, encodeErrorReply, one buffer a
 * message. What a command carries is declared once, in the file of its family; commands.ts is the table of all.
 * A message of a wrong size or type is an error of the stream (nobody knows where the next one begins); a wrong payload is an error of the
 * message alone. Descriptors that travel beside messages are not seen here.
 */
export * from './commands.ts';
export * from './device-info.ts';
export * from './dma.ts';
export * from './feature.ts';
export { HEADER_BYTES, type Header } from './header.ts';
export { PCI_IRQ_COUNT, type SetIrqs } from './irqs.ts';
export * from './message.ts';
export * from './migration-data.ts';
export type { Payload } from './payload.ts';
export * from './region-access.ts';
export type { MappableArea, RegionCapability } from './region-capability.ts';
export { CAPABILITY_DEFAULTS, type Capabilities, PROTOCOL_MAJOR, PROTOCOL_MINOR } from './version.ts';
