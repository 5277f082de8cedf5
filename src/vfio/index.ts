/**
 * vfio: devices that migrate by the VFIO migration protocol v2. `states` is the protocol's table, `device` what a user of it sees; the devices
 * behind that contract are emulated here, or live in another process. It knows no migration: when a device is stopped, what its
 * bytes travel on and what follows them is decided elsewhere.
 */
export * from './device.ts';
export * from './emulated/index.ts';
export * from './errors.ts';
export * from './function.ts';
export type { DeviceReport } from './machine/device-report.ts';
export { DEVICE_DEADLINES, type DeviceDeadlines, type MigratableDevice } from './machine/guarded-device.ts';
export type { PluggedDevice } from './machine/slot.ts';
export { SPAN_KINDS, SPANS, type Span, type SpanDeclaration, type SpanKind } from './machine/spans.ts';
export * from './machine/vfio-machine.ts';
export * from './move-device.ts';
export * from './plug-devices.ts';
export * from './states.ts';
export * from './timeline.ts';
export * from './transitions.ts';
export { CLIENT_TIMEOUTS, type ClientTimeouts } from './user-client/connect.ts';
export { openUserDevice, type UserDevice, type UserDeviceOptions } from './user-client/device.ts';
export type { GuestMemory } from './user-client/guest-memory.ts';
export type { RemoteFunction } from './user-client/remote-function.ts';
export type { VfioUserError, VfioUserFault } from './user-link/errors.ts';
export type { ServerEvent } from './user-server/events.ts';
export type { OfferedDevice } from './user-server/served-device.ts';
export { DeviceServer, type DeviceServerOptions } from './user-server/server.ts';
export { SESSION_TIMEOUTS, type SessionTimeouts } from './user-server/session.ts';
