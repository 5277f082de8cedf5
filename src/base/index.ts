/** base: what every room needs and no room owns. Knows no format, socket, machine or process. */
export * from './arcs.ts';
export * from './assert.ts';
export * from './bitmap.ts';
export * from './clock.ts';
export * from './error.ts';
export * from './page-content.ts';
export * from './page-key.ts';
export * from './reader.ts';
export * from './wake-up.ts';
export * from './writer.ts';
export * from './zero-page.ts';
