/**
 * vmstate: device state. Forwards: a declared description (`vmstate`) gives codec, state type and VMDESC entry of a device of ours.
 * Backwards: the VMDESC a stream carries explains the bytes of devices nobody here knows.
 */
export * from './description.ts';
export * from './errors.ts';
export * from './field.ts';
export * from './global-state.ts';
export * from './split.ts';
export * from './vmdesc.ts';
export * from './walk.ts';
