/**
 * qemu: a real QEMU as one side - the typed QMP client (it drives vmferry's own server as well), and processes for tests and demos.
 * Knows nothing of vmferry's engine.
 */
export * from './errors.ts';
export * from './qmp-client.ts';
export * from './qmp-commands.ts';
