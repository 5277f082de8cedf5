/**
 * wire: every byte format of QEMU's migration, as pure codecs: bytes in, values out. No socket, no clock, no log, no promise,
 * no import of a node: module (Buffer, a global, is the one thing taken from Node).
 */
export * from './stream/events.ts';
export * from './vmstate/index.ts';
