/**
 * vfio: devices that migrate by the VFIO migration protocol v2. `states` is the protocol's table, `device` what a user of it sees; the devices
 * behind that contract are emulated here, or live in another process. It knows no migration: when a device is stopped, what its
 * bytes travel on and what follows them is decided elsewhere.
 */
export * from './device.ts';
export * from './emulated/index.ts';
export * from './errors.ts';
export * from './function.ts';
export * from './states.ts';
export * from './transitions.ts';
