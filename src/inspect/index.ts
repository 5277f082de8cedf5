/**
 * inspect: streams, checkpoints and mapped-ram files explained without a machine. `inspect` walks a file once and gives an
 * Inspection: the report (plain data) and the device sections down to their fields; render/ turns them into text or JSON, analyze.ts
 * into the JSON of QEMU's own analyser. Files are read through a ByteSource, in bounded memory; nothing here opens or writes anything.
 */
export * from './analyze.ts';
export type { InspectedDevice, Inspection } from './inspection.ts';
export { inspect } from './inspection.ts';
export { COLOURS, type Paint, PLAIN } from './render/columns.ts';
export * from './render/device-json.ts';
export { deviceText } from './render/device-text.ts';
export { reportText } from './render/report-text.ts';
export * from './report.ts';
export * from './source.ts';
