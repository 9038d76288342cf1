// A workgroup on the CPU, by npm's `wgsl_reflect`, with what its race check lacks:
//
// - vec4(u) is a vector of u32 if u is one; the package takes f32, and a quotient is then no integer.
// - Vectors of integers hold integers; the package holds those of `vec4<u32>` as f32, which loses their low bits.
// - A struct's bool is a scalar.
// - A vector of bools is one of i32; the package has no such vector of its own.
// - select of vectors gives their type, not the conditions'.
// - Private variables are each lane's own; the package shares them.
// - Arguments are evaluated where the call is, and functions see no variables of their callers.
// - Results of functions are each lane's own; the package keeps them at the call, where the next lane overwrites them.
// - Lanes run one after the other up to the next barrier, so that no more than one is in the middle of a statement.
// - Accesses are compared through a table of memory words, not pair by pair: quick enough for 256 lanes.

const BARRIERS = ['workgroupBarrier', 'storageBarrier'];
/** What holds the elements of a vector. */
const LISTS = { f32: Float32Array, u32: Uint32Array, i32: Int32Array };

/** Thrown where a lane comes to one. */
class Barrier {
  constructor(node) {
    this.node = node;
  }
}

/** How lanes take turns: the first before the others, or the last. Atomics are in no race, but may tell the order. */
export const turns = { backwards: false };

/** Changes the package. Barriers that lanes meet at are added to `met`, by their lines. */
export function patch({ WorkgroupScheduler, MemoryTracker, ScalarData, TypedData, VectorData, WgslExec }, met) {
  WorkgroupScheduler.prototype.run = function () {
    const debug = this._debug;
    const calls = callsOf(debug.exec.ast);
    const lanes = this._invocations.map((lane) => ({ lane, results: calls.map(() => null), at: undefined }));
    scopeArguments(debug.exec);
    selectFloats(debug.exec, VectorData);
    const privates = privatesOf(debug.exec.context);
    for (const { lane } of lanes) {
      for (const [name, variable] of privates) lane.stack.states[0].context.variables.set(name, ownCopy(variable, TypedData));
    }
    const { exec } = debug;
    const execStatement = exec.execStatement;
    // Its own stop before a barrier misses those that follow the end of a function or a loop.
    exec.execStatement = function (node, context) {
      if (BARRIERS.includes(node.name) && 'args' in node) throw new Barrier(node);
      return execStatement.call(this, node, context);
    };
    /** Runs a lane up to the next barrier or its end. */
    const advance = (one) => {
      const { stack, index } = one.lane;
      calls.forEach((call, n) => (call.cachedReturnValue = one.results[n]));
      this._tracker.currentInvocation = index;
      one.at = null;
      for (let command; !one.at && (command = this._peek(one.lane)); ) {
        this._tracker.currentLine = command.line;
        try {
          debug.stepStack(stack, true);
        } catch (stop) {
          if (!(stop instanceof Barrier)) throw stop;
          const { commands, current } = stack.last;
          if (commands[current - 1].node !== stop.node) throw new Error(`line ${stop.node.line}: a barrier inside an expression`);
          one.at = stop.node;
        }
      }
      one.results = calls.map((call) => call.cachedReturnValue);
    };
    const inTurn = turns.backwards ? lanes.toReversed() : lanes;
    do {
      inTurn.forEach(advance);
      this._tracker.endPhase();
      lanes.filter(({ at }) => at).forEach(({ at }) => met.add(at.line));
      if (lanes.some(({ at }) => at !== lanes[0].at)) {
        this.errors.push('lanes stand at different barriers, or have ended while others stand at one');
        return;
      }
    } while (lanes[0].at);
  };
  const constructVector = WgslExec.prototype._callConstructorVec;
  const untyped = new WeakSet();
  WgslExec.prototype._callConstructorVec = function (node, context) {
    if (node.type.format === null) untyped.add(node);
    if (!untyped.has(node) || !node.args?.length) return constructVector.call(this, node, context);
    const parts = node.args.map((arg) => this.evalExpression(arg, context));
    const values = parts.flatMap((part) => (part instanceof VectorData ? [...part.data] : [part.value]));
    const count = Number(node.type.name.at(-1));
    const { typeInfo } = parts[0];
    const element = (typeInfo.format ?? typeInfo).name;
    const all = values.length === 1 ? Array(count).fill(values[0]) : values;
    const List = LISTS[element] ?? Int32Array;
    const letter = element === 'bool' ? 'i' : element[0];
    const vector = new VectorData(new List(all), this.getTypeInfo(`vec${count}${letter}`) ?? typeInfo);
    return vector.getSubData(this, node.postfix, context);
  };
  const cwise = WgslExec.prototype._makeCwiseData;
  WgslExec.prototype._makeCwiseData = function (values, typeInfo) {
    const List = typeInfo.name.startsWith('vec') && LISTS[typeInfo.format?.name];
    return List ? new VectorData(new List(values), typeInfo) : cwise.call(this, values, typeInfo);
  };
  const bitcast = WgslExec.prototype._evalBitcast;
  WgslExec.prototype._evalBitcast = function (node, context) {
    const type = this.getTypeInfo(node.type);
    const List = LISTS[type.format?.name];
    if (!List) return bitcast.call(this, node, context);
    return new VectorData(new List(this.evalExpression(node.value, context).data.slice().buffer), type);
  };
  const getMember = TypedData.prototype.getSubData;
  TypedData.prototype.getSubData = function (...place) {
    const value = getMember.apply(this, place);
    const isBool = value instanceof TypedData && value.typeInfo.name === 'bool';
    return isBool ? new ScalarData(new Int32Array(value.buffer, value.offset, 1)[0], value.typeInfo) : value;
  };
  MemoryTracker.prototype._checkPhase = function () {
    const words = new Map();
    for (const access of this._phase) {
      const kind = (access.kind === 'write' ? 0 : 1) + (access.atomic ? 2 : 0);
      for (let byte = access.offset; byte < access.offset + access.size; byte += 4) {
        const key = `${access.bufferId} ${byte}`;
        if (!words.has(key)) words.set(key, [null, null, null, null]);
        const seen = words.get(key);
        // Of each kind one access, and whether lanes other than its own made such an access too.
        if (!seen[kind]) seen[kind] = { access, several: false };
        else if (seen[kind].access.invocation !== access.invocation) seen[kind].several = true;
      }
    }
    for (const [key, [write, read, atomicWrite, atomicRead]] of words) {
      const pairs = [[write, write], [write, read], [write, atomicWrite], [write, atomicRead], [read, atomicWrite]];
      const race = pairs.find(([a, b]) => a && b && (a.several || b.several || a.access.invocation !== b.access.invocation));
      if (race) {
        const [a, b] = race.map(({ access }) => access);
        this.races.push({ message: `${key}: a ${a.kind} in line ${a.line} and a ${b.kind} in line ${b.line} are unordered` });
      }
    }
  };
}

/** Lets `select` with a vector of conditions give the values' type, and not the conditions'. */
function selectFloats(exec, VectorData) {
  const builtins = exec.builtins.constructor.prototype;
  if (builtins.plainSelect) return;
  builtins.plainSelect = builtins.Select;
  builtins.Select = function (node, context) {
    const [no, yes, condition] = node.args.map((arg) => this.exec.evalExpression(arg, context));
    if (!(condition instanceof VectorData)) return condition.value ? yes : no;
    return new VectorData(no.data.map((x, n) => (condition.data[n] ? yes.data[n] : x)), no.typeInfo);
  };
}

/** The lists that arguments are in. */
const lists = new WeakMap();

/** Lets a function's scope begin when all its arguments are known, and lie within its lane's outermost. */
function scopeArguments(exec) {
  for (const { args } of exec.ast.filter(({ body, args }) => body && args)) args.forEach((arg) => lists.set(arg, args));
  const context = exec.context.constructor.prototype;
  if (context.plainCreate) return;
  context.plainCreate = context.createVariable;
  context.createVariable = function (name, value, node) {
    const list = node && lists.get(node);
    if (!list) return this.plainCreate(name, value, node);
    this.coming = [...(this.coming ?? []), [name, value, node]];
    if (node !== list.at(-1)) return;
    this.coming.forEach((one) => this.plainCreate(...one));
    while (this.parent.parent?.parent) this.parent = this.parent.parent;
  };
}

const known = new WeakMap();

/** All call expressions of a syntax tree. */
function callsOf(tree) {
  if (!known.has(tree)) known.set(tree, nodesOf(tree).filter((node) => 'cachedReturnValue' in node));
  return known.get(tree);
}

/** All objects of a syntax tree. */
function nodesOf(tree) {
  const [seen, open] = [new Set(), [tree]];
  while (open.length) {
    const node = open.pop();
    if (!node || typeof node !== 'object' || ArrayBuffer.isView(node) || seen.has(node)) continue;
    seen.add(node);
    open.push(...Object.values(node));
  }
  return [...seen];
}

function privatesOf(context) {
  return [...context.variables].filter(([, { node }]) => node?.storage === 'private');
}

function ownCopy(variable, TypedData) {
  const copy = variable.clone();
  const { value } = variable;
  copy.value = value instanceof TypedData ? new TypedData(value.buffer.slice(0), value.typeInfo, value.offset, null) : value.clone();
  return copy;
}
