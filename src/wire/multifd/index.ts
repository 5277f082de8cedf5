/**
 * A door of its own into wire, for threads: each thread loads its modules anew, and a channel's needs these and no others (a third of the
 * time). Packets of multifd channels, and the errors they are refused with.
 */
export * from '../errors.ts';
export * from './device-state.ts';
export * from './flags.ts';
export * from './initial-packet.ts';
export * from './packet-kind.ts';
export * from './ram-packet.ts';
