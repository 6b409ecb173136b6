BEGIN TRANSACTION;
CREATE TABLE entries (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	request_id TEXT NOT NULL, 
	attempt BIGINT NOT NULL, 
	created_ns BIGINT NOT NULL, 
	key_id TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	requested_model TEXT NOT NULL, 
	model TEXT NOT NULL, 
	outcome BIGINT NOT NULL, 
	streamed BOOLEAN NOT NULL, 
	cache_status BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	cached_input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	tokens_estimated BOOLEAN NOT NULL, 
	cost_nano_usd BIGINT NOT NULL, 
	cost_basis BIGINT NOT NULL, 
	energy_low_microjoules BIGINT NOT NULL, 
	energy_microjoules BIGINT NOT NULL, 
	energy_high_microjoules BIGINT NOT NULL, 
	energy_basis BIGINT NOT NULL, 
	saved_cost_nano_usd BIGINT NOT NULL, 
	saved_energy_microjoules BIGINT NOT NULL, 
	carbon_micrograms BIGINT NOT NULL, 
	zone TEXT NOT NULL, 
	UNIQUE (request_id, attempt)
);
INSERT INTO "entries" VALUES(1,'r',1,1700000000000000000,'k1','openai','auto','gpt-4o',1,0,3,100,0,40,0,0,650000,1,145096066,338041360,787560713,4,0,0,36095,'USA');
INSERT INTO "entries" VALUES(2,'r',2,1700000000000000000,'k1','openai','auto','gpt-4o',1,0,3,100,0,40,0,0,650000,1,145096066,338041360,787560713,4,0,0,36095,'USA');
INSERT INTO "entries" VALUES(3,'hit',0,1700000000000000000,'k1','openai','auto','gpt-4o',7,0,3,100,0,40,0,0,0,4,5000,7071,10000,7,650000,90000000,1,'WOR');
CREATE TABLE intents (
	request_id TEXT NOT NULL, 
	router_id TEXT NOT NULL, 
	created_ns BIGINT NOT NULL, 
	key_id TEXT NOT NULL, 
	requested_model TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	model TEXT NOT NULL, 
	streamed BOOLEAN NOT NULL, 
	estimated_input_tokens BIGINT NOT NULL, 
	max_output_tokens BIGINT NOT NULL, 
	PRIMARY KEY (request_id)
);
INSERT INTO "intents" VALUES('open','a',1700000000000000000,'','auto','openai','gpt-4o',0,100,0);
CREATE TABLE totals (
	id INTEGER NOT NULL, 
	request_count BIGINT NOT NULL, 
	entry_count BIGINT NOT NULL, 
	cache_hit_count BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	cost_nano_usd BIGINT NOT NULL, 
	saved_cost_nano_usd BIGINT NOT NULL, 
	energy_microjoules BIGINT NOT NULL, 
	saved_energy_microjoules BIGINT NOT NULL, 
	carbon_micrograms BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "totals" VALUES(1,2,3,1,300,120,1300000,650000,676089791,90000000,72191);
CREATE INDEX intents_by_router ON intents (router_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('entries',3);
COMMIT;
