/**
 * migration: the decisions. One conductor a side (source/outgoing, destination/incoming), each a list of steps; `VmHost` is a process as its
 * manager sees it. Knows no QMP, no argv, and not which machine it moves.
 */
export type { SourceListener } from './destination/arrivals.ts';
export * from './destination/incoming.ts';
export * from './errors.ts';
export * from './fit/index.ts';
export { HANDSHAKE_SPOKEN, impossible } from './handshake/own-facts.ts';
export * from './host.ts';
export { connector, dialer, listenAt, requireConnections, requirePlaceForTls } from './many-connections.ts';
export * from './objects.ts';
export { type Route, routeTo } from './postcopy/source/route.ts';
export { hasReturnPath } from './source/has-return-path.ts';
export { OutgoingMigration, type OutgoingObserver, type OutgoingResult } from './source/outgoing.ts';
export * from './vm-host.ts';
