/**
 * settings: what an operator may set. Each capability, parameter and compat property is declared once as data; CLI flags,
 * QMP values and schema, text forms and docs follow. Knows no I/O, no migration and no machine.
 */
export * from './capabilities.ts';
export * from './compat.ts';
export * from './errors.ts';
export * from './objects.ts';
export {
  checkValue,
  expectation,
  type ParameterType,
  type SettleParameter,
} from './parameter-type.ts';
export * from './parameters.ts';
export * from './parse.ts';
export * from './reference.ts';
export * from './settings.ts';
export * from './waits.ts';
