/**
 * vmferry as a library. Whole jobs: `migrate` and its siblings of porcelain. A process of one's own: `createWorkload`, `VmHost`,
 * `QmpServer`. One migration without a process around it: `OutgoingMigration`, `IncomingMigration` over any `Channel`.
 */
export * from './base/index.ts';
export * from './control/index.ts';
export * as inspection from './inspect/index.ts';
export * from './machine/index.ts';
export * from './migration/index.ts';
export * from './porcelain/index.ts';
export * from './qemu/index.ts';
export * from './settings/index.ts';
export * as transport from './transport/index.ts';
export * as wire from './wire/index.ts';
