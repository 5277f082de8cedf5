/**
 * qemu: a real QEMU as one side - the typed QMP client (it drives vmferry's own server as well), the QEMUs of this machine, and
 * processes of them for tests and demos. Knows nothing of vmferry's engine.
 */
export * from './begin-migration.ts';
export * from './errors.ts';
export * from './peers.ts';
export * from './process.ts';
export * from './qmp-client.ts';
export * from './qmp-commands.ts';
export * from './text-log.ts';
